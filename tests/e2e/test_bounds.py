"""Limits that only real pipelines can show, and a Triton that asks for a key: the real gateway, the real Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_encoders
from embedded_triton import TritonServer
from gateway_process import running_gateway
from recorder import Recorder, recording_upstream
from tiny_encoders import TinyEncoder

from harness.ports import free_ports
from harness.program import Program
from immich_triton.immich.ml_client import entries_for, predict
from trials.load import picture

PIXELS = 320 * 240


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture
def clip_models(encoders: dict[str, TinyEncoder]) -> Path:
    return encoders["see_a"].models


@pytest.mark.xdist_group("triton")  # whose servers it asks for by their names
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("task", "model", "server", "repository"),
    [
        ("ocr", None, "ocr_triton", "ocr_models"),
        ("clip", tiny_encoders.NAME, "tiny_triton", "clip_models"),
        ("faces", None, "face_triton", "face_models"),
    ],
    ids=["ocr", "clip", "faces"],
)
def test_an_image_with_too_many_pixels_is_refused(
    task: str,
    model: str | None,
    server: str,
    repository: str,
    upstream: Recorder,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    triton: TritonServer = request.getfixturevalue(server)
    entries = entries_for(task, model)
    with running_gateway(
        tmp_path,
        models=request.getfixturevalue(repository),
        triton_url=triton.url,
        upstream=upstream.url,
        immich_max_pixels=PIXELS,
    ) as gateway:
        assert predict(gateway.url, entries, image=picture(1, (320, 240))).status == 200
        answer = predict(gateway.url, entries, image=picture(1, (321, 240)))
    assert answer.status == 400
    assert f"the image has 321x240 pixels, more than the allowed {PIXELS}" in answer.body["detail"]


@pytest.mark.xdist_group("supervisor")  # with a server of its own, and little to compute
def test_a_triton_with_a_key(upstream: Recorder, tmp_path: Path) -> None:
    models, key = tmp_path / "models", tmp_path / "key"
    tiny_encoders.repository(models, pairs="a")
    key.write_text("a-key-for-this-test\n")
    http_port, metrics_port = free_ports(2)
    arguments = ["--models", models, "--run-dir", tmp_path / "triton", "--key", f"file:{key}"]
    arguments += ["--http-port", http_port, "--metrics-port", metrics_port]
    program = Program.start("triton", arguments, tmp_path / "console.log")
    server = TritonServer(f"http://127.0.0.1:{http_port}", "", tmp_path / "triton", program)
    entries = entries_for("clip", tiny_encoders.NAME)
    try:
        server.wait_until_live()
        for number, (option, status) in enumerate(((f"file:{key}", 200), ("", 503))):
            directory = tmp_path / str(number)
            directory.mkdir()
            with running_gateway(
                directory, models=models, triton_url=server.url, upstream=upstream.url, immich_triton_key=option
            ) as gateway:
                answer = predict(gateway.url, entries, image=picture(1))
                assert answer.status == status, answer.body
                assert status == 200 or "wants a key and the gateway has none" in answer.body["detail"]
                assert "a-key-for-this-test" not in gateway.whole_log()
        assert "a-key-for-this-test" not in server.log + server.console
    finally:
        server.stop_at_once()
