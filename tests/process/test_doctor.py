"""immich-triton doctor on installations that lack something.

Immich itself (with its database) cannot be installed where the tests run: a small HTTP server gives the answers that a
real one was seen to give.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from aiohttp import web
from gateway_process import GatewayProcess, kept, running_gateway
from immich_server import KEY, Immich, running_immich
from places import PROJECT
from recorder import Recorder, recording_upstream
from small_models import write_model, write_ocr_route

from harness.ports import free_ports
from immich_triton.cli import doctor
from immich_triton.core import bounded_http
from immich_triton.core.counting import count
from immich_triton.ml.ledger import Ledger
from immich_triton.ml.route_file import Route, write_route
from immich_triton.triton.pipelines import Pipeline
from trials.servers import serving

Doctor = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMICH_API_KEY", KEY)


@pytest.fixture(scope="module")
def stock() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(stock: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway that routes OCR and CLIP, without Triton."""
    directory = tmp_path_factory.mktemp("doctor")
    models = directory / "models"
    write_ocr_route(write_model(models, "ocr"))
    write_model(models, "clip_image")
    folder = write_model(models, "cn_clip", backend="onnxruntime", code=None)
    pipelines = [Pipeline("clip_image", ["visual", "textual"], ["cn_clip"])]
    write_route(folder, Route("clip", ["ViT-B-16__openai"], pipelines, weights_sha256="1" * 64, dimension=512))
    triton = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(directory, models=models, triton_url=triton, upstream=stock.url) as process:
        yield process


@pytest.fixture
def models(gateway: GatewayProcess) -> Path:
    return gateway.state_dir.parent / "models"


@pytest.fixture
def run(gateway: GatewayProcess, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def examine(*arguments: object) -> tuple[int, str]:
        """Return the exit code and what was printed."""
        nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
        line = ["--url", gateway.url, "--triton", nobody, "--models", str(models), "--state-dir", str(tmp_path)]
        code = doctor.main([*line, *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return examine


@pytest.fixture
def immich(gateway: GatewayProcess) -> Iterator[Immich]:
    with running_immich(urls=[gateway.url]) as server:
        yield server


def test_each_finding_comes_with_its_fix(run: Doctor) -> None:
    code, printed = run()
    assert code == 1
    for finding, fix in [
        ("✗ no Triton answers at http", "→ start it with immich-triton run"),
        ("✗ cn_clip: model.onnx is missing", "→ make the model, then start Triton again"),
        ("✗ the gateway at http", "→ Immich gets 503 until then"),
    ]:
        lines = printed.splitlines()
        (index,) = [index for index, line in enumerate(lines) if finding in line]
        assert fix in lines[index + 1]
    assert "Faces is not routed: it stays with the stock ML" in printed
    assert "✓ the stock ML answers behind it" in printed
    assert "not checked: give --immich URL" in printed


def test_what_immich_asks_for(run: Doctor, immich: Immich, gateway: GatewayProcess) -> None:
    immich.ocr_name = "PP-OCRv5_server"
    _, printed = run("--immich", immich.url)
    assert "✓ Immich 2.7.5" in printed
    assert f"✓ Immich asks the gateway at {gateway.url}" in printed
    assert "✓ Smart Search: Immich asks for ViT-B-16__openai, which Triton answers, 512 numbers" in printed
    assert "· Faces: Immich asks for buffalo_l; the stock ML answers" in printed
    assert "! OCR: Immich asks for PP-OCRv5_server, which goes to the stock ML; routed are PP-OCRv5_mobile" in printed
    assert "immich-triton export ocr --names PP-OCRv5_server" in printed
    # Looking changes nothing.
    assert {request.split()[0] for request in immich.requests} == {"GET"}


def test_a_task_that_is_switched_off(run: Doctor, immich: Immich) -> None:
    immich.faces_name = ""
    assert "Faces is switched off in Immich" in run("--immich", immich.url)[1]


def test_a_clip_name_that_lost_its_route(run: Doctor, immich: Immich, tmp_path: Path) -> None:
    immich.clip_name = "ViT-L-14__openai"
    Ledger(tmp_path).own("ViT-L-14__openai", "2" * 64)
    code, printed = run("--immich", immich.url)
    assert code == 1
    assert "✗ Smart Search: Immich asks for ViT-L-14__openai, which Triton answered before" in printed
    assert "immich-triton ledger forget ViT-L-14__openai" in printed


def test_the_gateway_must_be_immichs_only_url(
    run: Doctor, immich: Immich, gateway: GatewayProcess, stock: Recorder
) -> None:
    immich.urls = [gateway.url + "/", stock.url]
    _, printed = run("--immich", immich.url)
    assert f"✗ Immich also lists {stock.url}: whenever we answer 503 it asks there, whose vectors would mix" in printed
    immich.urls = ["http://immich-triton:3004"]
    _, printed = run("--immich", immich.url)
    assert "! Immich asks http://immich-triton:3004, which cannot be told to be the gateway from here" in printed
    immich.urls = []
    assert "✗ Immich lists no machine-learning URL" in run("--immich", immich.url)[1]


@pytest.mark.parametrize(
    ("key", "permissions", "complaint"),
    [
        ("wrong", {"systemConfig.read"}, "Immich does not accept the API key"),
        (KEY, {"job.read"}, "→ Immich, Account Settings, API Keys: give an administrator's key the permission systemC"),
        ("wrong", {"systemConfig.read"}, "→ Immich, Account Settings, API Keys: make one as an administrator"),
    ],
)
def test_a_key_that_does_not_suffice(
    run: Doctor, immich: Immich, tmp_path: Path, key: str, permissions: set[str], complaint: str
) -> None:
    immich.permissions = permissions
    code, printed = run("--immich", immich.url, "--api-key", kept(tmp_path, key))
    assert code == 1
    assert complaint in printed


def test_one_error_is_counted_as_one(run: Doctor) -> None:
    _, printed = run()
    last = printed.splitlines()[-1]
    found = len(re.findall(r"^  ✗ ", printed, re.MULTILINE)), len(re.findall(r"^  ! ", printed, re.MULTILINE))
    assert last == f"{count(found[0], 'error')}, {count(found[1], 'warning')}"


def test_a_key_is_no_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--immich", "http://127.0.0.1:9", "--api-key", KEY]) == 1
    complaint = capsys.readouterr().err
    assert "--api-key must be file:PATH or env:NAME, not the secret itself" in complaint
    assert KEY not in complaint


def test_nor_is_it_one_of_make() -> None:
    line = ["make", "--dry-run", "-C", str(PROJECT), "doctor", "IMMICH=http://127.0.0.1:9"]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0
    refused = subprocess.run([*line, f"IMMICH_API_KEY={KEY}"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "put it before: IMMICH_API_KEY=… make doctor" in refused.stderr


def test_the_stock_ml_is_not_taken_for_the_gateway(run: Doctor, stock: Recorder) -> None:
    assert f"✗ what answers at {stock.url} is not the gateway" in run("--url", stock.url)[1]
    assert "✗ nothing answers at http://127.0.0.1:" in run("--url", f"http://127.0.0.1:{free_ports(1)[0]}")[1]


def test_another_service_is_not_taken_for_triton(run: Doctor, stock: Recorder) -> None:
    for answer in (b"[]", b'{"from":"upstream"}'):
        stock.answer = (200, answer)
        assert f"✗ what answers at {stock.url} is no Triton" in run("--triton", stock.url)[1]


TRITON_KEY = "open=sesame"


@contextmanager
def guarded_triton(hanging: str = "") -> Iterator[str]:
    """Run what answers like a Triton with a key, and hangs where the path ends with *hanging*; give its address."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if hanging and request.path.endswith(hanging):
            await asyncio.sleep(3600)
        if request.path.endswith("/index"):
            if request.headers.get("x-triton-key") != TRITON_KEY:
                return web.json_response({"error": "restricted"}, status=403)
            return web.json_response([{"name": "ocr", "state": "UNAVAILABLE", "reason": "no memory"}])
        if request.path == "/v2":
            return web.json_response({"name": "triton", "version": "2.51.0"})
        return web.Response(status=400)

    with serving(handle) as url:
        yield url


@pytest.mark.parametrize(
    ("hanging", "says"),
    [
        ("/v2", "does not answer within 1 s: it hangs"),
        ("/ready", "✗ Triton does not say whether"),
        ("/index", "✗ ocr is not ready"),
    ],
)
def test_a_triton_that_hangs_is_a_finding(
    run: Doctor, monkeypatch: pytest.MonkeyPatch, hanging: str, says: str
) -> None:
    monkeypatch.setattr(bounded_http, "SECONDS", 1.0)
    with guarded_triton(hanging) as url:
        code, printed = run("--triton", url)
    assert code == 1
    assert says in printed
    assert "Gateway" in printed  # it looked at the rest


def test_who_sends_a_byte_now_and_then_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.1)

    monkeypatch.setattr(bounded_http, "SECONDS", 1.0)
    with serving(drip) as url, pytest.raises(requests.Timeout):
        bounded_http.ask("GET", url)


def test_the_key_of_triton(run: Doctor, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{TRITON_KEY}\n")
    (tmp_path / "wrong").write_text("another\n")
    with guarded_triton() as url:
        assert "! Triton at http://127.0.0.1" in run("--triton", url)[1]
        assert "✗ ocr is not ready: no memory" in run("--triton", url, "--triton-key", f"file:{tmp_path / 'key'}")[1]
        printed = run("--triton", url, "--triton-key", f"file:{tmp_path / 'wrong'}")[1]
        assert "does not accept this key" in printed
        assert "another" not in printed
    code, printed = run("--triton-key", TRITON_KEY)
    assert code == 1
    assert "doctor: --triton-key must be file:PATH or env:NAME" in printed
    assert TRITON_KEY not in printed


def test_an_immich_that_answers_something_else_is_a_finding(run: Doctor) -> None:
    async def strange(_request: web.Request) -> web.StreamResponse:
        return web.json_response(["something else"])

    with serving(strange) as url:
        code, printed = run("--immich", url)
    assert code == 1
    assert "✗ what answers there says something else than Immich does" in printed


def test_a_repository_that_cannot_be_read(run: Doctor, tmp_path: Path) -> None:
    code, printed = run("--models", tmp_path / "nowhere")
    assert code == 1
    assert "the model repository" in printed
    assert "does not exist" in printed
