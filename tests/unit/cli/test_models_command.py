"""What ``immich-triton models archive`` and ``restore`` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_triton.cli import models_command
from immich_triton.core.paths import MODELS
from immich_triton.export.archive import ArchiveError


def test_a_file_and_the_repository_that_is_there_unless_another_is_named() -> None:
    parser = models_command.parser("what it does", "the file")
    options = parser.parse_args(["models.tar"])
    assert (options.file, options.models) == (Path("models.tar"), MODELS)
    assert parser.parse_args(["a.tar", "--models", "there"]).models == Path("there")


@pytest.mark.parametrize("error", [ArchiveError("no archive"), FileNotFoundError(2, "No such file", "a.tar")])
def test_what_goes_wrong_is_told_by_the_name_of_the_command(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> str:
        raise error

    assert models_command.attempt("models archive", work) == 1
    assert capsys.readouterr().err == f"models archive: {error}\n"


def test_what_was_done_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert models_command.attempt("models archive", lambda: "done") == 0
    assert capsys.readouterr().out == "done\n"
