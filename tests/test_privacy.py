"""Privacy at the default level: no query, no text found in a picture, no byte of an image, no vector, no secret of the
operator is in any log, metric or file, whatever goes well or wrong. Real mitmdump, real Triton, real models.
"""

from __future__ import annotations

import base64
import logging
import re
import shutil
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
import pytest
import requests
import tiny_encoders
from embedded_triton import StartTriton, TritonServer, eventually, free_ports
from gateway_process import GatewayProcess, kept, running_gateway
from mitmproxy.test import tflow
from recorder import Recorder, recording_upstream
from scrape import Scrape
from stand_in_triton import OCR_NAME, write_routes

from immich_triton.core.redaction import redact, where
from immich_triton.immich.ml_client import Answer, encode, entries_for, predict
from immich_triton.ml.service import Service
from immich_triton.proxy.privacy import Privacy

DATA = Path(__file__).parent / "data"
RECEIPT = (DATA / "images" / "zh_receipt.jpg").read_bytes()
FACE = (DATA / "images" / "astronaut.jpg").read_bytes()
QUERY = "海边婚礼 wedding-kqzx 外婆"
TOKEN = "path-token-0123456789abcdef"  # noqa: S105
FACES = b'{"facial-recognition":[],"imageHeight":1,"imageWidth":1,"note":"upstream-secret-kqzx"}'
LEAST = 4
"""Bytes by which something is told from noise."""
WINDOW = 12
"""Bytes of an image by which it could be recognised; a line of log has room for that many."""


def spellings(secret: bytes) -> set[bytes]:
    """Return how *secret* may look in a text: as it is, escaped by Python or JSON, quoted, hexadecimal, Base64."""
    seen = {secret, repr(secret)[2:-1].encode(), secret.hex().encode(), quote(secret).encode()}
    for lead in range(3):
        coded = base64.b64encode(bytes(lead) + secret)
        seen.add(coded[4 if lead else 0 : -4])  # what does not depend on the neighbours
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        pass
    else:
        seen |= {ascii(text)[1:-1].encode(), orjson.dumps(text)[1:-1], text.encode("utf-16-le")}
    return {spelling for spelling in seen if len(spelling) >= LEAST}


class Secret(NamedTuple):
    """What must not be found, and what to call it when it is."""

    name: str
    value: bytes


def of_text(name: str, text: str) -> list[Secret]:
    """Three Chinese characters in a row, long words and numbers: a log that cuts a text short would still tell it."""
    pieces = re.findall(r"(?=([\u4e00-\u9fff]{3}))", text) + re.findall(r"[a-z]{4,}|[0-9-]{7,}", text)
    return [Secret(name, piece.encode()) for piece in pieces]


def of_image(name: str, image: bytes) -> list[Secret]:
    """Windows from all over the file, and the whole beginning of its body."""
    places = {*range(0, 200, WINDOW), *range(200, len(image) - WINDOW, 997)}
    windows = [image[place : place + WINDOW] for place in sorted(places)]
    return [Secret(name, window) for window in windows if len(set(window)) > 4]


def assert_absent(secrets: list[Secret], places: dict[str, bytes]) -> None:
    """Fail with the name of the secret and the line of the place where it is."""
    assert secrets
    for name, content in places.items():
        for secret in secrets:
            for spelling in spellings(secret.value):
                if (at := content.find(spelling)) >= 0:
                    line = content[content.rfind(b"\n", 0, at) + 1 : at + 200].split(b"\n")[0]
                    pytest.fail(f"{secret.name} {secret.value!r} is in {name}: {line!r}")


def files_of(*directories: Path) -> dict[str, bytes]:
    """Every file of a program; not its libraries, in which any row of small numbers occurs."""
    found = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    found = [path for path in found if ".so" not in path.name]
    return {str(path): path.read_bytes() for path in found}


def test_the_search_finds_what_is_there() -> None:
    for spelling in ("海边婚", r"\u6d77\u8fb9\u5a5a", r"\xe6\xb5\xb7\xe8\xbe\xb9\xe5\xa9\x9a", "5rW36L65"):
        with pytest.raises(pytest.fail.Exception, match=r"query .* is in log"):
            assert_absent(of_text("query", QUERY), {"log": b"a\n" + spelling.encode() + b"\n"})
    with pytest.raises(pytest.fail.Exception, match=r"image .* is in log"):
        assert_absent(of_image("image", RECEIPT), {"log": repr(RECEIPT[:300]).encode()})


# The real thing


@pytest.fixture(scope="module")
def models(ocr_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models") / "models"
    shutil.copytree(ocr_models, models)
    tiny_encoders.repository(models)
    return models


@pytest.fixture(scope="module")
def triton(triton_server: StartTriton, models: Path) -> Iterator[TritonServer]:
    with triton_server(models) as server:
        yield server


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        recorder.answer = (200, FACES)
        yield recorder


@pytest.fixture(scope="module")
def gateway(
    triton: TritonServer, models: Path, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    with running_gateway(
        directory,
        models=models,
        triton_url=triton.url,
        upstream=upstream.url,
        immich_path_token=kept(directory, TOKEN),
        immich_shadow="1",
        immich_query_deadline=120,
        immich_allow_untrained="true",
    ) as process:
        yield process


def ask(gateway: GatewayProcess, task: str, model: str | None = None, **payload: Any) -> Answer:
    return predict(f"{gateway.url}/{TOKEN}", entries_for(task, model), **payload)


def post(gateway: GatewayProcess, body: bytes, content_type: str, **headers: str) -> int:
    url = f"{gateway.url}/{TOKEN}/predict"
    return requests.post(url, data=body, headers={"Content-Type": content_type, **headers}, timeout=60).status_code


def send(gateway: GatewayProcess, raw: bytes) -> None:
    """Send bytes that no client library would, and wait until the gateway has ended the connection."""
    with socket.create_connection(gateway.address, 60) as client:
        try:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        except TimeoutError:
            raise
        except OSError:  # it did not wait for the rest
            pass


def test_nothing_of_photos_and_queries_is_kept(
    gateway: GatewayProcess, triton: TritonServer, upstream: Recorder
) -> None:
    found = ask(gateway, "ocr", image=RECEIPT)
    query = ask(gateway, "clip-text", tiny_encoders.NAME, text=QUERY)
    picture = ask(gateway, "clip", tiny_encoders.NAME, image=RECEIPT)
    assert (found.status, query.status, picture.status) == (200, 200, 200)
    assert len(found.body["ocr"]["text"]) == 9
    vectors = [answer.body["clip"].split(",")[1:9] for answer in (query, picture)]

    # What passes through, what is split, what is compared in the background.
    assert ask(gateway, "faces", image=FACE).status == 200
    content_type, body = encode({**entries_for("ocr"), **entries_for("faces")}, image=RECEIPT)
    assert post(gateway, body, content_type) == 200
    assert eventually(lambda: "shadow:" in gateway.log)

    # What is refused: by the pipelines, by the parser, by the upstream.
    assert ask(gateway, "ocr", image=RECEIPT[:2000]).status == 400
    assert ask(gateway, "ocr", image=QUERY.encode() * 10).status == 400
    assert ask(gateway, "clip", tiny_encoders.NAME, text=QUERY).status == 400
    assert post(gateway, body[:-50], content_type) == 400
    form = 'multipart/form-data; boundary="b"'
    assert post(gateway, f'--b\r\nContent-Disposition: form-data; name="entries"\r\n\r\n{QUERY}'.encode(), form) == 400
    content_type, body = encode({QUERY: {QUERY: {"modelName": QUERY}}}, text=QUERY)
    assert post(gateway, body, content_type) == 200
    content_type, body = encode({"ocr": {QUERY: {"modelName": QUERY}}}, text=QUERY)
    assert post(gateway, body, content_type) == 422
    assert post(gateway, QUERY.encode(), "text/plain") == 422
    upstream.answer = (500, QUERY.encode() + RECEIPT)
    assert ask(gateway, "faces", image=FACE).status == 500
    upstream.answer = (200, FACES)

    # What is no HTTP: a client that counts wrong, so that mitmproxy takes content for the next request.
    head = f"POST /{TOKEN}/predict HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n"
    for content in (QUERY.encode() + b"\r\n\r\n", RECEIPT, b"\r\n" + QUERY.encode() + b" /x HTTP/1.1\r\n\r\n"):
        send(gateway, f"{head}Content-Length: 3\r\n\r\nabc".encode() + content)
        send(gateway, head.encode() + b"Content-Length: " + content + b"\r\n\r\n")
        send(gateway, head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + content)
        send(gateway, content)

    # And when Triton dies over it.
    triton.kill()
    assert ask(gateway, "ocr", image=RECEIPT).status == 200

    logs = {"the gateway's log": gateway.whole_log().encode(), "Triton's": triton.log.encode(), "run_triton's": b""}
    logs["run_triton's"] = triton.console.encode()
    metrics = {url: Scrape(url).text.encode() for url in (gateway.metrics_url, triton.metrics_url)}
    places = {**logs, **metrics, **files_of(gateway.state_dir, triton.run_dir)}
    assert b"/predict ocr (image): ok" in places["the gateway's log"]
    assert b"successfully loaded 'ocr'" in b"".join(places.values())
    secrets = [*of_text("the query", QUERY), Secret("the token", TOKEN.encode()), Secret("the upstream's", FACES[-25:])]
    secrets += [*of_image("the receipt", RECEIPT), *of_image("the face", FACE)]
    for text in found.body["ocr"]["text"]:
        secrets += of_text("a line of the receipt", text)
    secrets += [
        Secret("a number of a vector", number.encode()) for vector in vectors for number in vector if len(number) > 8
    ]
    assert_absent(secrets, places)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("KeyError: '猫 cat'", "KeyError: '…'"),
        ("can't open file \"secret name", 'can\'t open file "…"'),
        (r"UnicodeDecodeError: b'\xe7\'x' in 3", "UnicodeDecodeError: '…' in 3"),
        ("token Lake or 湖 at the lake-side is \x00 unknown", "token … or … … … …-side is … unknown"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_an_error_is_told_without_what_it_quotes(text: str, rest: str) -> None:
    assert redact(text, b"at the LAKE") == rest


def test_an_error_is_told_in_bounded_time_and_length() -> None:
    assert len(redact("x" * 10_000_000, b"y " * 1_000_000)) == 301
    assert len(redact("'" * 10_000_001)) <= 301


def test_what_mitmproxy_quotes_is_filtered_in_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    """The filter took 155 bytes for each one that it dropped: an endless head of the upstream was the end."""
    quoted = repr(RECEIPT * 50)
    log = logging.getLogger("mitmproxy.proxy.server")
    privacy = Privacy(Service())
    flow = tflow.tflow(err=True)
    assert flow.error
    flow.error.msg = f"unexpected server response: {quoted}"
    log.addFilter(privacy._filter)
    tracemalloc.start()
    try:
        privacy.error(flow)
        log.warning("Unexpected data from server: %s", quoted)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(quoted)  # what other threads do counts too
    finally:
        tracemalloc.stop()
        log.removeFilter(privacy._filter)
    assert flow.error.msg == "unexpected server response: …"
    assert caplog.messages == ["Unexpected data from server: …"]


def test_an_unexpected_error_is_told_by_its_place() -> None:
    try:
        try:
            dict[str, str]()[QUERY]
        except KeyError as error:
            raise ValueError(QUERY) from error
    except ValueError as error:
        told = where(error)
    assert "builtins.ValueError" in told
    assert "builtins.KeyError" in told
    assert "test_privacy.py" in told
    assert_absent(of_text("the query", QUERY), {"the place": told.encode()})


def test_errors_that_are_each_others_cause_are_told_once() -> None:
    error, other = ValueError(QUERY), KeyError(QUERY)
    error.__cause__ = error
    assert where(error) == "builtins.ValueError"
    error.__cause__, other.__cause__ = other, error
    assert where(error).splitlines() == ["builtins.ValueError", "builtins.KeyError"]
    error.__cause__, error.__suppress_context__ = None, False
    error.__context__, other.__cause__, other.__context__ = other, None, error
    assert where(error).splitlines() == ["builtins.ValueError", "builtins.KeyError"]


def test_a_long_chain_of_causes_is_cut() -> None:
    error: Exception = ValueError()
    for _ in range(10_000):
        above = ValueError()
        above.__cause__ = error
        error = above
    assert len(where(error).splitlines()) <= 50


# A Triton whose errors quote what it was asked, or hold what it found


@pytest.fixture(scope="module")
def quoting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recorder, GatewayProcess]]:
    """A server in the place of Triton that answers everything with the same words, and the gateway before it."""
    directory = tmp_path_factory.mktemp("quoting")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with (
        recording_upstream() as triton,
        running_gateway(
            directory,
            models=write_routes(directory / "models"),
            triton_url=triton.url,
            upstream=nobody,
            immich_query_deadline=2,
            immich_deadline=2,
            immich_fallback_tasks="ocr",
        ) as gateway,
    ):
        yield triton, gateway


def output(name: str, kind: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape, "data": data}


def outputs(*found: dict[str, Any]) -> bytes:
    return orjson.dumps({"model_name": "x", "model_version": "1", "outputs": list(found)})


@pytest.mark.parametrize(
    "answer",
    [
        (500, orjson.dumps({"error": f"KeyError: '{QUERY}'"})),
        (500, orjson.dumps({"error": f"UnicodeEncodeError: {QUERY.encode()!r}"})),
        (500, QUERY.encode()),
        (400, orjson.dumps({"error": f"bad input: cannot read {QUERY}"})),
        (200, QUERY.encode("gb18030")),
        (200, outputs(output("EMBEDDING", "FP32", [1, 512], [QUERY]))),
        (200, outputs(output("EMBEDDING", QUERY, [1, 512], [1.0]))),
        (200, outputs(output(QUERY, "BYTES", [1, 1], [QUERY]))),
        (200, outputs(output("TEXTS", "BYTES", [1, 1], [QUERY]), output("BOXES", "FP32", [1, 1, 8], [QUERY] * 8))),
    ],
)
def test_an_error_that_quotes_is_not_passed_on(
    quoting: tuple[Recorder, GatewayProcess], answer: tuple[int, bytes]
) -> None:
    triton, gateway = quoting
    triton.answer = answer
    assert predict(gateway.url, entries_for("clip-text"), text=QUERY).status >= 400
    assert predict(gateway.url, entries_for("ocr", OCR_NAME), image=QUERY.encode()).status >= 400
    places = {
        "the gateway's log": gateway.whole_log().encode(),
        "its metrics": Scrape(gateway.metrics_url).text.encode(),
    }
    assert_absent(of_text("the query", QUERY), places)
