"""Routes are declared beside the models; whatever is doubtful stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_triton.ml.route_file import Route, RouteError, write_route
from immich_triton.ml.routes import load_routes, look
from immich_triton.triton.pipelines import Pipeline

SHA = "a" * 64
OCR = Pipeline("ocr", ["detection", "recognition"], ["ocr_det", "ocr_rec"], {"detector": "ocr_det", "n": 3, "b": True})


def add(models: Path, folder: str, route: Route) -> Path:
    (models / folder).mkdir(parents=True, exist_ok=True)
    return write_route(models / folder, route)


def test_reads_what_the_export_scripts_write(tmp_path: Path) -> None:
    add(tmp_path, "ocr_rec", Route("ocr", ["PP-OCRv5_mobile", "other::name"], [OCR], SHA))
    visual = Pipeline("clip_image", ["visual"], ["v"], {"encoder": "v"})
    textual = Pipeline("clip_text", ["textual"], ["t"], {"encoder": "t"})
    add(tmp_path, "v", Route("clip", ["ViT-B-16__openai"], [visual, textual], SHA, dimension=512, untrained=True))
    table = load_routes(tmp_path)
    ocr = table.find("ocr", "other__name")
    clip = table.find("clip", "ViT-B-16__openai")
    assert ocr is not None
    assert clip is not None
    assert ocr.pipeline("recognition").all_models == ("ocr", "ocr_det", "ocr_rec")
    assert ocr.pipeline("detection").parameters == {"detector": "ocr_det", "n": 3, "b": True}
    assert (clip.dimension, clip.untrained, clip.pipeline("textual").name) == (512, True, "clip_text")
    assert table.find("ocr", "ViT-B-16__openai") is None
    assert len(table.describe()) == 2


def test_no_routes_is_fine_but_no_folder_is_not(tmp_path: Path) -> None:
    assert load_routes(tmp_path).routes == ()
    with pytest.raises(RouteError, match=r"does not exist; set immich_models to .*export ocr"):
        load_routes(tmp_path / "missing")


@pytest.mark.parametrize("spelling", ["PP-OCRv5.1", "PP-OCRv51", "some/PP-OCRv5.1."])
def test_a_name_with_a_dot_is_found_however_it_is_spelt_and_shown_as_it_is_written(
    tmp_path: Path, spelling: str
) -> None:
    add(tmp_path, "a", Route("ocr", ["PP-OCRv5.1"], [OCR], SHA))
    table = load_routes(tmp_path)
    assert table.find("ocr", spelling) is table.routes[0]
    assert table.describe()[0].startswith("ocr PP-OCRv5.1 -> ")


@pytest.mark.parametrize("other", ["x", ".x", "y/x"])
def test_two_routes_for_one_name_are_refused(tmp_path: Path, other: str) -> None:
    add(tmp_path, "a", Route("ocr", ["x"], [OCR], SHA))
    add(tmp_path, "b", Route("ocr", [other], [OCR], SHA))
    with pytest.raises(RouteError, match=f"both answer ocr {other}"):
        load_routes(tmp_path)


GOOD = f"""
task = "ocr"
names = ["x"]
weights_sha256 = "{SHA}"
[[pipelines]]
name = "ocr"
types = ["detection", "recognition"]
models = []
"""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('task = "ocr"', 'task = "pets"', "'pets' is none of"),
        ('task = "ocr"', "", "task is missing"),
        ('["x"]', "[]", "names is empty"),
        ('["x"]', "[1]", "list of strings"),
        (SHA, "A" * 64, "no SHA-256"),
        ('"recognition"', '"reading"', "must answer each of the types"),
        (', "recognition"', "", "must answer each of the types"),
        ('task = "ocr"', 'task = "ocr"\nsurprise = 1', "unknown key 'surprise'"),
        ("models = []", "models = []\nparameters = {a = 1.5}", "parameter a must be"),
        ("task =", "task", "Run its export script again"),
    ],
)
def test_an_invalid_route_says_what_is_wrong(tmp_path: Path, old: str, new: str, reason: str) -> None:
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "route.toml"
    path.write_text(GOOD)
    load_routes(tmp_path)
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(RouteError, match=reason) as caught:
        load_routes(tmp_path)
    assert str(path) in str(caught.value)


def test_a_look_notices_every_change(tmp_path: Path) -> None:
    path = add(tmp_path, "a", Route("ocr", ["x"], [OCR], SHA))
    first = look(tmp_path)
    assert look(tmp_path) == first
    path.unlink()
    removed = look(tmp_path)
    add(tmp_path, "b", Route("ocr", ["x"], [OCR], SHA))
    assert len({first, removed, look(tmp_path)}) == 3
