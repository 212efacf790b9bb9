"""Privacy at the default level: no query, no text found in a picture, no byte of an image, no vector, no secret of the
operator is in any log, metric or file, whatever goes well or wrong. Real mitmdump, real Triton, real models.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
import tiny_encoders
from disclosure import Secret, assert_absent, files_of, of_image, of_text
from embedded_triton import StartTriton, TritonServer
from gateway_process import GatewayProcess, kept, running_gateway
from places import DATA
from recorder import Recorder, recording_upstream
from scrape import Scrape
from stand_in_triton import OCR_NAME, write_routes

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.immich.ml_client import Answer, encode, entries_for, predict

RECEIPT = (DATA / "images" / "zh_receipt.jpg").read_bytes()
FACE = (DATA / "images" / "astronaut.jpg").read_bytes()
QUERY = "海边婚礼 wedding-kqzx 外婆"
TOKEN = "path-token-0123456789abcdef"  # noqa: S105
FACES = b'{"facial-recognition":[],"imageHeight":1,"imageWidth":1,"note":"upstream-secret-kqzx"}'


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
    with ThreadPoolExecutor(1) as pool:  # both wait for the deadline
        query = pool.submit(predict, gateway.url, entries_for("clip-text"), text=QUERY)
        assert predict(gateway.url, entries_for("ocr", OCR_NAME), image=QUERY.encode()).status >= 400
        assert query.result().status >= 400
    places = {
        "the gateway's log": gateway.whole_log().encode(),
        "its metrics": Scrape(gateway.metrics_url).text.encode(),
    }
    assert_absent(of_text("the query", QUERY), places)
