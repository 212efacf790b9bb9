"""``immich-triton models archive``: says what it wrote, or why it did not."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import write_model

from immich_triton.cli import models_archive


def test_says_what_is_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "models", "echo")
    target = tmp_path / "models.tar"
    assert models_archive.main([str(target), "--models", str(tmp_path / "models")]) == 0
    said = capsys.readouterr().out
    assert f"{target}: echo (2 files, " in said
    assert "immich-triton models restore models.tar" in said


@pytest.mark.parametrize("models", ["empty", "missing"])
def test_says_why_it_wrote_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], models: str) -> None:
    (tmp_path / "empty").mkdir()
    assert models_archive.main([str(tmp_path / "models.tar"), "--models", str(tmp_path / models)]) == 1
    assert capsys.readouterr().err.startswith("models archive: ")
    assert not (tmp_path / "models.tar").exists()
