"""Generated bodies, entries and paths: a clear answer every time, no exception, no hang, and stock's reading of a body.

Say how many with ``IMMICH_TRITON_EXAMPLES``; the end of the run says how many were tried.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import http.server
import json
import os
import socket
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from gateway_process import GatewayProcess, running_gateway
from generated_forms import MULTIPART, URLENCODED, bodies, content_types, multipart, multiparts, part, urlencoded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from python_multipart.multipart import parse_options_header
from stand_in_triton import stand_in_triton, write_routes
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartParser

from immich_triton.core.errors import ProtocolError
from immich_triton.immich.clip_names import dimension_of
from immich_triton.immich.ml_client import entries_for
from immich_triton.immich.task_types import KNOWN_TYPES
from immich_triton.ml.dispatch import split
from immich_triton.ml.forms import FormError, read_parts
from immich_triton.ml.gateway import failure
from immich_triton.ml.protocol import Form, parse_entries, parse_form, parse_task
from immich_triton.ml.route_file import Route
from immich_triton.ml.routes import RouteTable
from immich_triton.ml.service import Service
from immich_triton.ml.tasks import TASKS
from immich_triton.proxy.targets import fold_path
from immich_triton.triton.pipelines import Pipeline

EXAMPLES = int(os.environ.get("IMMICH_TRITON_EXAMPLES", "500"))
thorough = settings(
    max_examples=EXAMPLES,
    # A busy machine is no failure; what hangs ends with the test's own time.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
pytestmark = pytest.mark.timeout(max(300, EXAMPLES))

RAN: Counter[str] = Counter()


def counted[**P](test: Callable[P, None]) -> Callable[P, None]:
    """Count the examples of a test."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        RAN[test.__name__] += 1
        test(*args, **kwargs)

    return run


@pytest.fixture(scope="module", autouse=True)
def _say_how_many(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        reporter.write_line("")
        for name, count in RAN.items():
            reporter.write_line(f"{count:>7} examples: {name}")


# What stock makes of a body. Not compared: a charset in the Content-Type, which stock obeys; no browser and no Node
# sends one.


class Multipart(MultiPartParser):
    """The parser of FastAPI, which tells as well whether the closing boundary came."""

    ended = False

    def on_end(self) -> None:
        self.ended = True

    def close(self) -> None:
        """Close the files; stock itself forgets one without an end."""
        for file in self._files_to_close_on_error:
            file.close()


Fields = list[tuple[str, str | bytes]]
"""Names and values in their order: fields as text, files as bytes."""


async def stock(content_type: bytes, body: bytes, most: int) -> tuple[Fields | None, str]:
    """Return what Starlette reads, None when it refuses to: FastAPI answers 400, whatever the parser raised.

    The text says what we have against a body that it reads: then we refuse it.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        if body:
            yield body
        yield b""

    kind, parameters = parse_options_header(content_type)
    headers = Headers(raw=[(b"content-type", content_type)])
    parser = Multipart(headers, stream(), max_files=most, max_fields=most)
    against = ""
    try:
        if kind == b"multipart/form-data":
            form = await parser.parse()
            if not parser.ended:
                against = "without its closing boundary an image may be half a one, which stock takes for whole"
            elif not parameters[b"boundary"]:
                against = "no text at all is no boundary (RFC 2046, 5.1.1)"
        elif kind == b"application/x-www-form-urlencoded":
            form = await FormParser(headers, stream(), max_fields=most).parse()
            if body.count(b"&") >= most:
                against = "fifty million empty pairs are no fields for stock, and too many to be taken apart"
        else:
            form = FormData()
        read: Fields = [
            (name, await value.read() if isinstance(value, UploadFile) else value) for name, value in form.multi_items()
        ]
    except Exception:  # noqa: BLE001 - so does FastAPI
        return None, ""
    else:
        return read, against
    finally:
        parser.close()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@thorough
@given(
    request_=st.one_of(
        st.tuples(content_types, bodies),
        st.tuples(st.just(MULTIPART), multiparts),
        st.tuples(st.just(URLENCODED), urlencoded),
    ),
    most=st.sampled_from([1000, 3, 1]),
)
@counted
def test_any_body_is_read_or_refused_as_stock_does(
    runner: asyncio.Runner, request_: tuple[str, bytes], most: int
) -> None:
    content_type, body = request_
    compare(runner, content_type, body, most)


MEBIBYTE = b"x" * 1024 * 1024
LIMITS = {
    "a field of a mebibyte, a file of more": (
        MULTIPART,
        multipart(part("text", MEBIBYTE), part("image", 2 * MEBIBYTE)),
    ),
    "a longer field": (MULTIPART, multipart(part("text", MEBIBYTE + b"x"))),
    "a thousand fields and files": (MULTIPART, multipart(*1000 * [part("text", b""), part("image", b"")])),
    "more fields": (MULTIPART, multipart(*1001 * [part("text", b"")])),
    "more files": (MULTIPART, multipart(*1001 * [part("image", b"")])),
    "a pair of a mebibyte": (URLENCODED, b"text=" + MEBIBYTE[5:]),
    "a longer pair": (URLENCODED, b"text=" + MEBIBYTE[3:]),
    "a thousand pairs": (URLENCODED, b"&".join(1000 * [b"text="])),
    "more pairs": (URLENCODED, b"&".join(1001 * [b"text="])),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_the_limits_are_stocks(runner: asyncio.Runner, limit: str) -> None:
    content_type, body = LIMITS[limit]
    compare(runner, content_type, body, 1000)


def compare(runner: asyncio.Runner, content_type: str, body: bytes, most: int) -> None:
    expected, against = runner.run(stock(content_type.encode("utf-8", "surrogateescape"), body, most))
    if expected is None or against:
        with pytest.raises(FormError):
            read_parts(content_type, body, max_parts=most)
    else:
        # A pair without a name and a value is a field for us and none for stock: nobody could ask for it.
        ours = [one for one in read_parts(content_type, body, max_parts=most) if one.name or one.value]
        theirs = [one for one in expected if one != ("", "")]
        assert [one.name for one in ours] == [name for name, _ in theirs]
        for one, (_, wanted) in zip(ours, theirs, strict=True):
            assert (text_of(one.value) if isinstance(wanted, str) else one.value) == wanted


def text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def check_refusal(error: ProtocolError, *statuses: int) -> None:
    assert error.status in statuses
    assert json.loads(failure(error)[0].content or b"").keys() == {"detail"}


@thorough
@given(
    fields=st.lists(
        st.tuples(st.sampled_from(["entries", "text", "image", "other"]), st.binary(max_size=200)), max_size=8
    )
)
@counted
def test_what_a_browser_would_send_comes_back_as_it_was(fields: list[tuple[str, bytes]]) -> None:
    form = parse_form(MULTIPART, multipart(*(part(name, value) for name, value in fields)))
    last = dict(fields)
    assert form.image == last.get("image")
    for name, text in (("entries", form.entries), ("text", form.text)):
        assert text == (text_of(last[name]) if last.get(name) else None)


# What is asked


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
    clip = Pipeline("clip_image", ("visual",), (), {}, 1), Pipeline("clip_text", ("textual",), (), {}, 1)
    table = RouteTable(
        tuple(
            Route(task, (name,), pipelines, "a" * 64, dimension, False, __file__)  # type: ignore[arg-type]
            for task, name, pipelines, dimension in (
                ("ocr", "PP-OCRv5_mobile", (ocr,), 0),
                ("facial-recognition", "buffalo_l", (faces,), 512),
                ("clip", "ViT-B-16__openai", clip, dimension_of("ViT-B-16__openai") or 0),
            )
        )
    )
    one._routes = SimpleNamespace(table=table)  # type: ignore[assignment]
    one.refuse_owned = lambda _name: None  # type: ignore[method-assign, assignment]
    return one


@thorough
@given(value=entries_values, has_image=st.booleans())
@counted
def test_any_entries_are_understood_or_refused(service: Service, value: Any, has_image: bool) -> None:
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
@counted
def test_any_text_as_entries_is_understood_or_refused(raw: str) -> None:
    try:
        tasks = parse_entries(raw)
        for task in set(tasks) & set(TASKS):
            parse_task(task, tasks[task])
    except ProtocolError as error:
        check_refusal(error, 400, 422)


# Where it is asked

steps = [
    b"/",
    b".",
    b"..",
    b"%2e",
    b"%2F",
    b"predict",
    b"%70",
    b"?",
    b"#",
    b"//",
    b"\xff",
    b"\xc3",
    b"caf\xc3\xa9",
    b"%ff",
]
targets = st.one_of(st.binary(max_size=40), st.lists(st.sampled_from(steps)).map(b"".join))
"""Request targets as they come over the wire: bytes, which need not be text."""


@thorough
@given(target=targets)
@counted
def test_any_path_is_folded_to_one_that_stays(target: bytes) -> None:
    folded = fold_path(target.decode("utf-8", "surrogateescape"))  # what mitmproxy makes of it
    assert folded.startswith("/")
    assert "//" not in folded
    assert not {".", ".."} & set(folded.split("/"))


class AnyTarget(http.server.BaseHTTPRequestHandler):
    """An upstream that takes every target, also one that is no text."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def any_upstream() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), AnyTarget) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    with (
        stand_in_triton() as triton,
        any_upstream() as upstream,
        running_gateway(
            directory, models=write_routes(directory / "models"), triton_url=triton.url, upstream=upstream
        ) as process,
    ):
        yield process
        log = process.whole_log().lower().replace("there was an error parsing the body", "")
        assert "traceback" not in log
        assert "error" not in log


PREDICT = [
    b"/predict",
    b"//predict",
    b"/%70redict",
    b"/x/../predict",
    b"/predict/",
    b"/predict?x=1",
    b"/predict?\xff",
    b"/\xff/../predict",
    b"/predict#\xc3",
]


@settings(thorough, max_examples=max(100, EXAMPLES // 10))
@given(
    content_type=content_types,
    body=st.one_of(bodies, entries_values.map(lambda value: with_image(json.dumps(value)))),
    target=st.sampled_from(PREDICT),
)
@counted
def test_the_gateway_answers_whatever_comes(
    gateway: GatewayProcess, content_type: str, body: bytes, target: bytes
) -> None:
    header = content_type.encode("utf-8", "surrogateescape").translate(None, b"\r\n\0")
    status, content = post(gateway, target, header, body)
    assert status in (200, 400, 422), content
    json.loads(content)


@pytest.mark.parametrize("target", PREDICT, ids=ascii)
def test_every_spelling_of_predict_is_answered_by_triton(gateway: GatewayProcess, target: bytes) -> None:
    status, content = post(gateway, target, MULTIPART.encode(), with_image(json.dumps(entries_for("ocr"))))
    assert (status, json.loads(content)["ocr"]["text"]) == (200, ["text"])


def post(gateway: GatewayProcess, target: bytes, content_type: bytes, body: bytes) -> tuple[int, bytes]:
    """Send a request; http.client itself sends no target that is no text."""
    head = b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(gateway.address, 60) as client:
        client.sendall(head % (target, content_type, len(body)) + body)
        with http.client.HTTPResponse(client, method="POST") as response:
            response.begin()
            return response.status, response.read()


def with_image(entries: str) -> bytes:
    return multipart(part("entries", entries.encode("utf-8", "surrogatepass")), part("image", b"image"))
