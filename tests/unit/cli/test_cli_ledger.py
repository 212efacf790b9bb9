"""The command that shows which CLIP names are owned, and gives them up."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_triton.cli import ledger as command
from immich_triton.ml.ledger import Ledger


def test_the_command_shows_and_forgets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Ledger(tmp_path).own("ViT-B-16__openai", "1" * 64)
    arguments = ["--state-dir", str(tmp_path)]
    assert command.main([*arguments, "show"]) == 0
    assert "ViT-B-16__openai  1111" in capsys.readouterr().out
    assert command.main([*arguments, "forget", "ViT-B-16::openai"]) == 0
    assert command.main([*arguments, "forget", "ViT-B-16__openai"]) == 1
    assert "is not owned" in capsys.readouterr().err
    assert Ledger(tmp_path).owned() == {}


def test_a_ledger_that_cannot_be_read_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "owned.json").write_text("{")
    for arguments in (["show"], ["forget", "x"]):
        assert command.main(["--state-dir", str(tmp_path), *arguments]) == 1
        assert "ledger: cannot read" in capsys.readouterr().err


def test_nothing_is_owned_at_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--state-dir", str(tmp_path / "new"), "show"]) == 0
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "new").exists(), "to look changes nothing"
