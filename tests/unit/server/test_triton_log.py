"""What of Triton's log reaches the terminal. The lines are Triton 2.51's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_triton.server.triton_log import Event, Kind, LogFollower, interpret

FAILED = (
    "E1122 09:22:26.348075 13271 model_lifecycle.cc:642] \"failed to load 'ocr' version 1: Internal: "
    'ValueError: no dictionary\\n\\nAt:\\n  /models/ocr/1/model.py(3): initialize\\n"'
)
STRAY = (
    "E1122 09:24:55.839960 15298 model_repository_manager.cc:1460] \"Poll failed for model directory 'stray': "
    'Invalid model name: Could not determine backend"'
)
IN_USE = (
    'E1122 09:25:20.057349 15868 main.cc:257] "failed to start HTTP service: Unavailable - Socket '
    "'127.0.0.1:18100' already in use \""
)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "I1122 09:27:10.300640 18872 model_lifecycle.cc:839] \"successfully loaded 'ocr_det'\"",
            Event(Kind.LOADED, model="ocr_det"),
        ),
        (FAILED, Event(Kind.FAILED, "ValueError: no dictionary", "ocr")),
        (
            STRAY,
            Event(Kind.FAILED, "Invalid model name: Could not determine backend", "stray"),
        ),
        (
            'E1122 09:22:26.350369 13271 tritonserver.cc:2607] "Internal: failed to load all models"',
            None,
        ),
        ('E1122 09:22:22.795194 13271 server.cc:241] "CudaDriverHelper has not been initialized."', None),
        ('I1122 09:22:22.795082 13271 cuda_memory_manager.cc:117] "CUDA memory pool disabled"', None),
        (
            'W1122 10:00:00.000000 1 model.py:73] "model det: unknown parameter nise"',
            Event(Kind.WARNING, "model det: unknown parameter nise"),
        ),
        (
            IN_USE,
            Event(Kind.ERROR, "failed to start HTTP service: Unavailable - Socket '127.0.0.1:18100' already in use"),
        ),
        (
            'I1127 01:14:00.476207 1 model.py:74] "model det: served by the embedded Python-based backend on CPU"',
            Event(Kind.BACKEND, "model.py"),
        ),
        (
            'I1127 01:14:00.476207 13990 onnxruntime.cc:2899] "TRITONBACKEND_Initialize: onnxruntime"',
            Event(Kind.BACKEND, "libtriton_onnxruntime.so"),
        ),
        (
            "E1127 01:14:00.476207 1 bls.py:44] \"model rec failed: Stub process 'rec_0_1' is not healthy.\"",
            Event(Kind.UNHEALTHY, "model rec failed: Stub process 'rec_0_1' is not healthy.", "rec_0_1"),
        ),
        ("  /models/echo/1/model.py(2): <module>", None),
        ("", None),
    ],
)
def test_interpret(line: str, event: Event | None) -> None:
    assert interpret(line) == event


def test_a_long_message_is_cut() -> None:
    event = interpret(f'E1122 10:00:00.000000 1 x.cc:1] "{"long " * 200}"')
    assert event is not None
    assert len(event.text) == 400


def test_lines_are_read_once_and_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    log = LogFollower(path)
    log.rotate()
    with path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert list(log.lines()) == ["one"]
        file.write("o\n")
        file.flush()
        assert list(log.lines()) == ["two"]
        assert list(log.lines()) == []


def test_an_emptied_log_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    log = LogFollower(path)
    log.rotate()
    path.write_text("one\ntwo\n")
    assert list(log.lines()) == ["one", "two"]
    path.write_text("new\n")
    assert list(log.lines()) == ["new"]


def test_a_removed_log_gives_nothing(tmp_path: Path) -> None:
    assert list(LogFollower(tmp_path / "triton.log").lines()) == []


def test_a_run_keeps_the_log_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text("before\n")
    log = LogFollower(path)
    log.rotate()
    assert list(log.lines()) == []
    assert (tmp_path / "triton.log.1").read_text() == "before\n"


def test_the_log_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    log = LogFollower(path, limit=100)
    log.rotate()
    with path.open("a") as file:  # as Triton does: opened once, for appending
        for number in range(100):
            file.write(f"line {number}\n")
            file.flush()
            assert list(log.lines()) == [f"line {number}"]
    assert path.stat().st_size <= 110
    assert (tmp_path / "triton.log.1").exists()
