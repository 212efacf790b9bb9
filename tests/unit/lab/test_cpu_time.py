"""What processes are called whose CPU time is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import cpu_time
from harness.program import eventually
from immich_triton.server import processes

WAIT = "read line"


def name_of(line: Sequence[str], program: str) -> str:
    """Return what a process of *program* that sees the command line *line* is called."""
    child = subprocess.Popen(line, executable=program, stdin=subprocess.PIPE)
    try:
        # The kernel lets go of the pipe that tells us of an exec before the new command line can be read.
        assert eventually(lambda: bool(processes.arguments(child.pid)), 10)
        return cpu_time.name_of(child.pid)
    finally:
        child.communicate()


def test_the_process_of_a_model_is_called_as_the_model(tmp_path: Path) -> None:
    model = tmp_path / "models/ocr_det/1/model.onnx"
    model.parent.mkdir(parents=True)
    model.write_text(WAIT)  # for the shell that is run in the stub's place
    assert name_of([f"{tmp_path}/{cpu_time.STUB}", str(model), "some more"], "/bin/sh") == "ocr_det"


@pytest.mark.parametrize(
    ("line", "program", "name"),
    [
        (["python3", "-c", "input()", cpu_time.DECODING, "4"], sys.executable, "decoding"),
        (["/usr/bin/tritonserver", "-c", WAIT], "/bin/sh", "tritonserver"),
    ],
)
def test_others_are_called_by_what_they_run(line: list[str], program: str, name: str) -> None:
    assert name_of(line, program) == name
