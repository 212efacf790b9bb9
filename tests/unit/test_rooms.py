"""The rooms of the package: the rule file of import-linter finds an import that points up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import PROJECT

LINT = Path(sys.executable).with_name("lint-imports")


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("", "", ""),
        ("core", "import immich_triton.ml.service", "imports point down BROKEN"),
        ("proxy", "from immich_triton.triton import client", "imports point down BROKEN"),
        ("web", "def late() -> None:\n    from immich_triton.ml import dispatch", "two products BROKEN"),
        ("ml", "from immich_triton.mt_photos import protocol", "imports point down BROKEN"),
        ("web", "from immich_triton.mt_photos import protocol", "the site and mt_photos BROKEN"),
        ("attic", "", "exhaustive"),
    ],
)
def test_an_import_that_points_up_and_a_room_without_a_floor_are_found(
    tmp_path: Path, module: str, line: str, broken: str
) -> None:
    shutil.copytree(PROJECT / "addons/immich_triton", tmp_path / "immich_triton")
    if module:
        (tmp_path / "immich_triton" / module).mkdir(exist_ok=True)
        (tmp_path / "immich_triton" / module / "__init__.py").touch()
        (tmp_path / "immich_triton" / module / "planted.py").write_text(f"{line}\n")
    done = subprocess.run(
        [LINT, "--config", PROJECT / ".importlinter", "--no-cache", "--no-logo"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert (done.returncode, broken.lower() in said.lower()) == (1 if broken else 0, True), said
