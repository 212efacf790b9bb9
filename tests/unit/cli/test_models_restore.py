"""``immich-triton models restore``: the other half, by the same command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import write_model

from immich_triton.cli import models_archive, models_restore


@pytest.fixture
def target(tmp_path: Path) -> Path:
    write_model(tmp_path / "here", "echo")
    models_archive.main([str(tmp_path / "models.tar"), "--models", str(tmp_path / "here")])
    return tmp_path / "models.tar"


def test_restores_and_says_how_to_check(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = target.parent / "there"
    assert models_restore.main([str(target), "--models", str(there)]) == 0
    assert (there / "echo/config.pbtxt").read_bytes() == (target.parent / "here/echo/config.pbtxt").read_bytes()
    said = capsys.readouterr().out
    assert f"{there}: restored echo" in said
    assert f"immich-triton check-models {there}" in said


def test_says_why_it_restored_nothing(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = str(target.parent / "here")
    assert models_restore.main([str(target), "--models", here]) == 1
    assert "has echo already" in capsys.readouterr().err
    assert models_restore.main([str(target), "--models", here, "--replace"]) == 0
    assert models_restore.main([str(target.parent / "nowhere.tar"), "--models", here]) == 1
    assert "nowhere.tar" in capsys.readouterr().err
