"""What is left in the supervisor's own process after a server that it ran."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

import pytest
from small_models import write_model

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.server import pipeline_processes
from immich_triton.server.triton_process import TritonProcess
from immich_triton.server.triton_settings import TritonSettings

pytestmark = pytest.mark.xdist_group("supervisor")


def controls() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("model control")}


def test_no_thread_is_left_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is started does not matter here: it is stopped before it is asked anything.
    monkeypatch.setattr("immich_triton.server.triton_install.command", lambda *_arguments, **_more: ["sleep", "600"])
    write_model(tmp_path / "models", "echo")
    before = controls()
    http_port, metrics_port = free_ports(2)
    triton = TritonProcess(TritonSettings(tmp_path / "models", http_port, metrics_port, tmp_path / "run"), print)
    triton.start()
    assert controls() - before
    triton.stop()
    assert eventually(lambda: not controls() - before)


def test_beside_a_gpu_a_pipeline_is_loaded_with_more_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_processes, "available_cpus", lambda: 8)
    models = tmp_path / "models"
    for name in ("echo", "bounded"):
        write_model(models, name)
    config = models / "bounded/config.pbtxt"
    config.write_text(
        config.read_text() + 'parameters { key: "most_processes", value: { string_value: "3" } }\n', encoding="utf-8"
    )
    http_port, metrics_port = free_ports(2)
    settings = TritonSettings(models, http_port, metrics_port, tmp_path / "run", shared_memory_mib=1, gpu=True)
    triton = TritonProcess(settings, print)
    triton.start()
    try:

        def ready() -> bool:
            triton.poll()
            return triton.ready

        assert eventually(ready, 120)
        counts = {}
        for name in ("echo", "bounded"):
            with urllib.request.urlopen(f"{settings.url}/v2/models/{name}/config", timeout=10) as answer:
                counts[name] = json.load(answer)["instance_group"][0]["count"]
            with urllib.request.urlopen(f"{settings.url}/v2/models/{name}/ready", timeout=10) as answer:
                assert answer.status == 200
        assert counts == {"echo": 1, "bounded": 3}
    finally:
        triton.stop()
