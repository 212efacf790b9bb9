"""The command that runs the embedded Triton, as far as it comes without one; with it: test_run_triton.py."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from small_models import write_model

from harness.ports import free_ports
from immich_triton.cli import triton


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    http, metrics = map(str, free_ports(2))
    line = ["--models", str(tmp_path / "models"), "--run-dir", str(tmp_path / "run")]
    return [*line, "--http-port", http, "--metrics-port", metrics, "--shm-mib", "1"]


def test_a_key_on_the_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert triton.main([*arguments, "--key", "open-sesame"]) == 1
    error = capsys.readouterr().err
    assert "triton: error: --key must be file:PATH or env:NAME" in error
    assert "open-sesame" not in error


def test_a_repository_that_is_none_is_told_with_what_makes_one(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert triton.main(arguments) == 1
    assert f"triton: error: the model repository {tmp_path / 'models'} does not exist" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before, "a stop ends this process as before"


def test_an_abbreviated_option_is_none(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        triton.main([*arguments, "--only"])
    assert "unrecognized arguments: --only" in capsys.readouterr().err


def test_ports_that_are_one_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "models", "echo")
    (port,) = map(str, free_ports(1))
    before = threading.active_count()
    assert triton.main([*arguments, "--http-port", port, "--metrics-port", port]) == 1
    assert "cannot share port" in capsys.readouterr().err
    assert threading.active_count() == before
