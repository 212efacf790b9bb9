"""Faults under load, a soak, and limits that only real pipelines can show: all tasks, real nets, the real Triton.

``scripts/lab/chaos.py`` has more trials and takes longer over them, and so does ``scripts/lab/soak.py``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import chaos
import pytest
import soak
from embedded_triton import Program, StartTriton, TritonServer, free_ports
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder, recording_upstream

from immich_triton.immich.ml_client import entries_for, predict
from trials.load import picture

if TYPE_CHECKING:
    from clip_standins import ClipStandins

TASKS = ("ocr", "clip", "faces")
PIXELS = 320 * 240


@pytest.fixture(scope="module")
def models(
    ocr_models: Path, clip_standins: ClipStandins, face_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model repository with every task."""
    merged = tmp_path_factory.mktemp("all") / "models"
    for repository in (ocr_models, clip_standins.models, face_models):
        shutil.copytree(repository, merged, copy_function=link_or_copy, dirs_exist_ok=True)
    return merged


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def triton(triton_server: StartTriton, models: Path) -> Iterator[TritonServer]:
    with triton_server(models) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(
    triton: TritonServer, models: Path, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with running_gateway(
        tmp_path_factory.mktemp("gateway"),
        models=models,
        triton_url=triton.url,
        upstream=upstream.url,
        immich_allow_untrained="true",
        immich_max_pixels=PIXELS,
    ) as process:
        yield process


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("task", TASKS)
def test_an_image_with_too_many_pixels_is_refused(gateway: GatewayProcess, task: str) -> None:
    entries = entries_for(task)
    assert predict(gateway.url, entries, image=picture(1, (320, 240))).status == 200
    answer = predict(gateway.url, entries, image=picture(1, (321, 240)))
    assert answer.status == 400
    assert f"the image has 321x240 pixels, more than the allowed {PIXELS}" in answer.body["detail"]


def test_a_triton_with_a_key(ocr_models: Path, upstream: Recorder, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a-key-for-this-test\n")
    http_port, metrics_port = free_ports(2)
    arguments = ["--models", ocr_models, "--run-dir", tmp_path / "triton", "--key", f"file:{key}"]
    arguments += ["--http-port", http_port, "--metrics-port", metrics_port]
    program = Program.start("run_triton.py", arguments, tmp_path / "console.log")
    server = TritonServer(f"http://127.0.0.1:{http_port}", "", tmp_path / "triton", program)
    try:
        server.wait_until_live()
        for number, (option, status) in enumerate(((f"file:{key}", 200), ("", 503))):
            directory = tmp_path / str(number)
            directory.mkdir()
            with running_gateway(
                directory,
                models=ocr_models,
                triton_url=server.url,
                upstream=upstream.url,
                immich_triton_key=option,
            ) as gateway:
                answer = predict(gateway.url, entries_for("ocr"), image=picture(1))
                assert answer.status == status, answer.body
                assert status == 200 or "wants a key and the gateway has none" in answer.body["detail"]
                assert "a-key-for-this-test" not in gateway.whole_log()
        assert "a-key-for-this-test" not in server.log + server.console
    finally:
        server.stop()


@pytest.mark.timeout(1200)
def test_faults_under_load(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = ["outage", "kill", "broken", "garbage", "interrupt"]
    assert chaos.main([*trials, "--models", str(models), "--pace", "0.2", "--deadline", "15"]) == 0, capsys.readouterr()


@pytest.mark.timeout(1200)
def test_nothing_grows(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--models", str(models), "--minutes", "3"]) == 0, capsys.readouterr()
