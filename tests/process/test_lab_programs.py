"""The programs of the lab start as a person starts them: by their path, with nothing on Python's path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import PROJECT

PROGRAMS = [
    path
    for path in (*PROJECT.glob("scripts/lab/*.py"), *PROJECT.glob("scripts/lab/image/*.py"))
    if "argparse.ArgumentParser(" in (text := path.read_text(encoding="utf-8")) and "__name__ == " in text
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(PROJECT / "scripts/lab")))
def test_a_program_of_the_lab_explains_itself(program: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, program, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_every_folder_of_the_lab_with_programs_is_looked_at() -> None:
    assert {"bench.py", "chaos.py", "document_options.py", "prove.py"} <= {program.name for program in PROGRAMS}
