"""What is left in the supervisor's own process after a server that it ran."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from small_models import write_model

from harness.ports import free_ports
from harness.program import eventually
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
