"""Faults under load, and a soak: all tasks, real nets, the real Triton.

``scripts/lab/chaos.py`` has more trials and takes longer over them, and so does ``scripts/lab/soak.py``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import chaos
import pytest
import soak

if TYPE_CHECKING:
    from clip_standins import ClipStandins

pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("triton")]


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


def test_faults_under_load(models: Path) -> None:
    trials = ["outage", "kill", "broken", "garbage", "interrupt"]
    assert chaos.main([*trials, "--models", str(models), "--pace", "0.2", "--deadline", "15"]) == 0


def test_nothing_grows(models: Path) -> None:
    # What a fast machine has answered 5,000 of is still warming up half a minute later.
    assert soak.main(["--models", str(models), "--requests", "12000", "--minutes", "3"]) == 0
