"""What the log of a Triton tells the person at the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import write_model

from immich_triton.server.triton_log import Event, Kind
from immich_triton.server.triton_report import Report
from immich_triton.server.triton_settings import TritonSettings


class Terminal:
    """A report, and what it said."""

    def __init__(self, directory: Path) -> None:
        self.said: list[str] = []
        self.models = directory / "models"
        self.report = Report(TritonSettings(self.models, 8000, 8002, directory / "run"), self.said.append)

    def take(self, kind: Kind, text: str = "", model: str = "", elapsed: str = "") -> str:
        """Return what is said to one event; empty when nothing is."""
        before = len(self.said)
        self.report.take(Event(kind, text, model), elapsed)
        return "; ".join(self.said[before:])


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    terminal = Terminal(tmp_path)
    write_model(terminal.models, "echo")
    return terminal


def test_a_model_that_came_up_after_all_has_not_failed(terminal: Terminal) -> None:
    assert terminal.take(Kind.FAILED, "no memory", "echo") == "model echo could not be loaded: no memory"
    assert terminal.report.failed == {"echo": "no memory"}
    for _ in range(2):
        assert terminal.take(Kind.LOADED, model="echo", elapsed=" in 2.0 s") == "echo loaded in 2.0 s"
    assert (terminal.report.loaded, terminal.report.failed) == (["echo"], {})


def test_a_failure_is_told_once_and_again_when_the_reason_is_another(terminal: Terminal) -> None:
    assert terminal.take(Kind.FAILED, "no memory", "echo")
    assert terminal.take(Kind.FAILED, "no memory", "echo") == ""
    assert terminal.take(Kind.FAILED, "no disk", "echo") == "model echo could not be loaded: no disk"


def test_what_lies_in_the_folder_is_a_better_reason(terminal: Terminal) -> None:
    write_model(terminal.models, "torn", code=None)
    terminal.report.fail("torn", "a traceback of Python")
    assert "model.py is missing" in terminal.report.failed["torn"]


def test_a_warning_that_comes_again_stays_in_the_log(terminal: Terminal) -> None:
    assert terminal.take(Kind.WARNING, "slow") == "warning: slow"
    assert terminal.take(Kind.WARNING, "slow") == ""
    assert terminal.take(Kind.ERROR, "broken") == "error: broken"
    assert terminal.take(Kind.UNHEALTHY, "a stub is not healthy", "echo_0_0") == "error: a stub is not healthy"
    assert terminal.report.errors == ["broken", "a stub is not healthy"], "a warning is no error"


def test_the_last_errors_are_kept_and_no_more(terminal: Terminal) -> None:
    for number in range(15):
        terminal.take(Kind.ERROR, str(number))
    assert terminal.report.errors == [str(number) for number in range(5, 15)]


def test_which_backend_serves_is_told_once(terminal: Terminal) -> None:
    ours = terminal.take(Kind.BACKEND, "model.py")
    assert "the embedded Python-based backend" in ours
    assert ours.endswith("run/backends/onnxruntime/model.py")
    assert terminal.take(Kind.BACKEND, "model.py") == ""
    assert "the C++ backend" in terminal.take(Kind.BACKEND, "libtriton_onnxruntime.so")


def test_another_server_begins_anew(terminal: Terminal) -> None:
    terminal.take(Kind.LOADED, model="echo")
    terminal.take(Kind.FAILED, "no memory", "other")
    terminal.take(Kind.ERROR, "broken")
    terminal.take(Kind.BACKEND, "model.py")
    terminal.report.begin()
    report = terminal.report
    assert (report.loaded, report.failed, report.errors) == ([], {}, [])
    assert terminal.take(Kind.BACKEND, "model.py")
