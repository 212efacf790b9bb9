"""``immich-triton check-models``: a line per finding, the exit code of a gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import write_model

from immich_triton.cli import check_models


def test_each_finding_is_a_line_and_an_error_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path, "echo")
    assert check_models.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("warning: echo: max_batch_size without dynamic_batching") for line in lines)
    (tmp_path / "notes").mkdir()
    assert check_models.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("error: notes: ") for line in lines)
    assert all(line.partition(": ")[0] in ("ok", "warning", "error") for line in lines)
