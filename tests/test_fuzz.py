"""Generated bodies and entries: a clear answer every time, no exception, no hang, and stock's status.

``FUZZ_EXAMPLES`` says how many of each kind; a thorough run takes 100000.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from gateway_process import GatewayProcess, running_gateway
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorder import recording_upstream
from stand_in_triton import stand_in_triton, write_routes
from toolbox.client import entries_for

from immich_triton.clip_names import dimension_of
from immich_triton.dispatch import split
from immich_triton.gateway import failure
from immich_triton.protocol import KNOWN_TYPES, Form, ProtocolError, fold_path, parse_entries, parse_form, parse_task
from immich_triton.routes import Pipeline, Route, RouteTable
from immich_triton.service import Service
from immich_triton.tasks import TASKS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))
thorough = settings(
    max_examples=EXAMPLES, deadline=2000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

BOUNDARY = b"----formdata-undici-012345678901"


def form_of(entries: str) -> bytes:
    """Return a multipart body with *entries* and an image."""
    parts = {b'"entries"': entries.encode("utf-8", "surrogatepass"), b'"image"; filename="blob"': b"image"}
    return (
        b"".join(
            b"--%s\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n" % (BOUNDARY, name, value)
            for name, value in parts.items()
        )
        + b"--%s--\r\n" % BOUNDARY
    )


# Pieces a multipart body is made of, so that the generator gets past the first line of a parser.
pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"\r\n",
            b"\n",
            b"\r",
            b"--",
            b"--" + BOUNDARY,
            b"\r\n--" + BOUNDARY,
            b"\r\n--" + BOUNDARY + b"--",
            b"--" + BOUNDARY + b"\r\n",
            b'Content-Disposition: form-data; name="entries"',
            b'Content-Disposition: form-data; name="image"; filename="blob"',
            b'Content-Disposition: form-data; name="text"',
            b"Content-Disposition: form-data",
            b"Content-Disposition: form-data; name*=utf-8''entries",
            b'Content-Disposition: form-data; name="a\\"b"; filename=""',
            b"Content-Type: application/octet-stream",
            b"Content-Transfer-Encoding: base64",
            b"\r\n\r\n",
            b":",
            b"\0",
            b'{"ocr":{}}',
            json.dumps(entries_for("ocr")).encode(),
        ]
    ),
)
content_types = st.one_of(
    st.just(f"multipart/form-data; boundary={BOUNDARY.decode()}"),
    st.sampled_from(
        [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            'multipart/form-data; boundary="' + BOUNDARY.decode() + '"',
            "application/x-www-form-urlencoded",
            "application/json",
            "",
        ]
    ),
    # What mitmproxy makes of a header's bytes.
    st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)


@thorough
@given(content_type=content_types, body=st.lists(pieces, max_size=24).map(b"".join))
def test_any_body_is_parsed_or_refused_as_stock_does(content_type: str, body: bytes) -> None:
    try:
        form = parse_form(content_type, body, max_parts=100)
    except ProtocolError as error:
        check_refusal(error, 400)
    else:
        assert isinstance(form, Form)


def check_refusal(error: ProtocolError, *statuses: int) -> None:
    assert error.status in statuses
    assert json.loads(failure(error)[0].content or b"").keys() == {"detail"}


@thorough
@given(
    fields=st.lists(
        st.tuples(st.sampled_from(["entries", "text", "image", "other"]), st.binary(max_size=200)), max_size=8
    )
)
def test_what_a_browser_would_send_comes_back_as_it_was(fields: list[tuple[str, bytes]]) -> None:
    body = b""
    for name, value in fields:
        filename = b'; filename="blob"' if name == "image" else b""
        body += b"--%s\r\nContent-Disposition: form-data; name=%s%s\r\n\r\n" % (
            BOUNDARY,
            b'"%s"' % name.encode(),
            filename,
        )
        body += value.replace(BOUNDARY, b"") + b"\r\n"
    body += b"--" + BOUNDARY + b"--\r\n"
    form = parse_form(f"multipart/form-data; boundary={BOUNDARY.decode()}", body)
    last = dict(fields)
    assert form.image == last.get("image")
    for name, text in (("entries", form.entries), ("text", form.text)):
        if last.get(name):
            assert text in (last[name].decode("utf-8", "replace"), last[name].decode("latin-1"))
        else:
            assert text is None


words = st.one_of(
    st.sampled_from(sorted({*KNOWN_TYPES, "visual", "textual", "detection", "recognition"})), st.text(max_size=8)
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
names = st.one_of(
    st.sampled_from(["PP-OCRv5_mobile", "ViT-B-16__openai", "ViT-B-16::openai", "x/../buffalo_l"]), leaves
)
options = st.one_of(
    leaves,
    st.dictionaries(st.sampled_from(["minScore", "maxResolution", "language", "other"]), leaves, max_size=4),
)
models = st.one_of(
    leaves, st.fixed_dictionaries({}, optional={"modelName": names, "options": options, "other": leaves})
)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))
entries_values = st.one_of(st.dictionaries(words, st.dictionaries(words, models, max_size=3), max_size=3), anything)


@pytest.fixture(scope="module")
def service() -> Service:
    """A service with routes for every task, without a mitmproxy around it."""
    one = Service()
    ocr = Pipeline("ocr", ("detection", "recognition"), ())
    faces = Pipeline("faces", ("detection", "recognition"), ())
    clip = Pipeline("clip_image", ("visual",), ()), Pipeline("clip_text", ("textual",), ())
    one._table = RouteTable(
        tuple(
            Route(task, (name,), pipelines, "a" * 64, dimension, False, __file__)  # type: ignore[arg-type]
            for task, name, pipelines, dimension in (
                ("ocr", "PP-OCRv5_mobile", (ocr,), 0),
                ("facial-recognition", "buffalo_l", (faces,), 512),
                ("clip", "ViT-B-16__openai", clip, dimension_of("ViT-B-16__openai") or 0),
            )
        )
    )
    one.refuse_owned = lambda _name: None  # type: ignore[method-assign, assignment]
    return one


@thorough
@given(value=entries_values, has_image=st.booleans())
def test_any_entries_are_understood_or_refused_as_stock_does(service: Service, value: Any, has_image: bool) -> None:
    form = Form(None, b"image" if has_image else None, None if has_image else "text")
    try:
        ours, others = split(service, parse_entries(json.dumps(value)))
        for part in ours:
            TASKS[part.route.task].call(part.route, part.entries, form)
    except ProtocolError as error:
        check_refusal(error, 400, 422)
    else:
        assert isinstance(value, dict)
        assert {part.route.task for part in ours} | set(others) == set(value)


@thorough
@given(raw=st.text(max_size=200))
def test_any_text_as_entries_is_understood_or_refused(raw: str) -> None:
    try:
        tasks = parse_entries(raw)
        for task in set(tasks) & set(TASKS):
            parse_task(task, tasks[task])
    except ProtocolError as error:
        check_refusal(error, 400, 422)


@thorough
@given(
    path=st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(["/", ".", "..", "%2e", "%2F", "predict", "%70", "?", "#", "//"])).map("".join),
    )
)
def test_any_path_is_folded_to_one_that_stays(path: str) -> None:
    folded = fold_path(path)
    assert folded.startswith("/")
    assert "//" not in folded
    assert not {".", ".."} & set(folded.split("/"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    with (
        stand_in_triton() as triton,
        recording_upstream() as upstream,
        running_gateway(
            directory, models=write_routes(directory / "models"), triton_url=triton.url, upstream=upstream.url
        ) as process,
    ):
        yield process
        assert "Traceback" not in process.log
        assert "error" not in process.log.lower().replace("there was an error parsing the body", "")


@settings(thorough, max_examples=max(100, EXAMPLES // 10))
@given(
    content_type=content_types,
    body=st.one_of(st.lists(pieces, max_size=24).map(b"".join), entries_values.map(json.dumps).map(form_of)),
    path=st.sampled_from(["/predict", "//predict", "/%70redict", "/x/../predict", "/predict/", "/predict?x=1"]),
)
def test_the_gateway_answers_whatever_comes(gateway: GatewayProcess, content_type: str, body: bytes, path: str) -> None:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=10)
    header = content_type.encode("utf-8", "surrogateescape").translate(None, b"\r\n\0")
    try:
        connection.putrequest("POST", path)
        connection.putheader("content-type", header)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    assert response.status in (200, 400, 422), content
    json.loads(content)
