"""What is written into a route file is what is read; the folder of routes: test_routes.py."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from immich_triton.immich.task_types import KNOWN_TYPES
from immich_triton.ml.route_file import FILE, Route, RouteError, read_route, route_files, write_route
from immich_triton.triton.pipelines import Pipeline

SHA = "a" * 64
OCR = Pipeline("ocr", ("detection", "recognition"), ("ocr_det", "ocr_rec"))
CLIP = (
    Pipeline("clip_image", ("visual",), ("see",), {"encoder": "see"}),
    Pipeline("clip_text", ("textual",), ("read",), {"encoder": "read"}, fingerprint=8),
)


VALUES = st.text() | st.integers() | st.booleans()
FINGERPRINTS = st.none() | st.integers(0, 2**63 - 1)


@st.composite
def routes_to_write(draw: st.DrawFn) -> Route:
    """Draw a route that an export may write: one pipeline for all types of its task, or one for each."""
    task, types = draw(st.sampled_from(sorted(KNOWN_TYPES.items())))
    pipelines = [
        Pipeline(
            draw(st.text()),
            tuple(answered),
            tuple(draw(st.lists(st.text(min_size=1), max_size=3))),
            draw(st.dictionaries(st.text(), VALUES, max_size=3)),
            draw(FINGERPRINTS),
        )
        for answered in draw(st.sampled_from([[list(types)], [[one] for one in types]]))
    ]
    return Route(
        task,
        tuple(draw(st.lists(st.text(min_size=1), min_size=1, max_size=3))),
        pipelines,
        draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        draw(st.integers(0, 4096)),
        draw(st.booleans()),
    )


@given(route=routes_to_write())
@example(Route("ocr", ["\x7f"], [Pipeline("\r\n\0", ["detection", "recognition"], [], {"a.b \x7f": 'c"\\'})], SHA))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, route: Route) -> None:
    path = write_route(tmp_path_factory.mktemp("route"), route)
    assert said(read_route(path)) == said(route)


def said(route: Route) -> dict[str, object]:
    """Return what a route says, as plain values; lists and tuples say the same."""
    plain = json.loads(json.dumps({**asdict(route), "source": ""}))
    assert isinstance(plain, dict)
    return plain


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (Route("ocr", ["x"], [OCR], "a"), "weights_sha256 is no SHA-256"),
        (Route("ocr", [], [OCR], SHA), "names is empty"),
        (Route("clip", ["x"], [Pipeline("clip_text", ["textual"], [])], SHA), "must answer each of the types"),
    ],
)
def test_what_would_not_be_read_is_not_written(tmp_path: Path, route: Route, reason: str) -> None:
    with pytest.raises(RouteError, match=reason):
        write_route(tmp_path, route)
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprints_that_an_older_export_does_not_name_lie_beside_its_encoders(tmp_path: Path) -> None:
    for encoder, sha in (("see", SHA), ("read", "b" * 64)):
        (tmp_path / encoder).mkdir()
        (tmp_path / encoder / "export.json").write_text(json.dumps({"fingerprint": 5, "weights": {"sha256": sha}}))
    path = write_route(tmp_path / "read", Route("clip", ("x",), CLIP, SHA, 512))
    assert [pipeline.fingerprint for pipeline in read_route(path).pipelines] == [5, 8]
    (tmp_path / "see/export.json").unlink()
    assert [pipeline.fingerprint for pipeline in read_route(path).pipelines] == [None, 8]


def test_a_route_knows_who_answers_which_type() -> None:
    route = Route("clip", ("x",), CLIP, SHA, 512)
    assert [route.pipeline(type_) for type_ in ("textual", "visual")] == [CLIP[1], CLIP[0]]
    assert route != Route("clip", ("x",), CLIP, SHA, 512), "each route is itself"


def test_what_an_export_is_still_filling_has_no_route(tmp_path: Path) -> None:
    for folder in ("b", "a", ".new"):
        (tmp_path / folder).mkdir()
        write_route(tmp_path / folder, Route("ocr", ("x",), (OCR,), SHA))
    assert route_files(tmp_path) == [tmp_path / "a" / FILE, tmp_path / "b" / FILE]
    assert read_route(tmp_path / "a" / FILE).source == tmp_path / "a" / FILE


@pytest.mark.parametrize("content", [b"\xff", b"task =", b"a = " + b"[" * 50_000, b"fingerprint = 1"])
def test_what_cannot_be_read_names_the_file_and_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(RouteError, match=r"route\.toml: .+ Run its export script again, or remove the folder\.$"):
        read_route(path)
    path.unlink()
    with pytest.raises(RouteError, match="No such file"):
        read_route(path)


@pytest.mark.parametrize("fingerprint", ["-1", "9223372036854775808", "true", "1.0", '"5"'])
def test_a_fingerprint_is_a_number_that_triton_can_give(tmp_path: Path, fingerprint: str) -> None:
    path = write_route(tmp_path, Route("clip", ("x",), CLIP, SHA, 512))
    path.write_text(path.read_text().replace("fingerprint = 8", f"fingerprint = {fingerprint}"))
    with pytest.raises(RouteError, match="fingerprint must be an integer between 0 and"):
        read_route(path)
