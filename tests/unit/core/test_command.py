"""How one program of ours starts another."""

from __future__ import annotations

import os
import sys

import pytest

from immich_triton.core.command import COMMAND, environment
from immich_triton.core.paths import PACKAGE


def test_the_command_is_this_package_in_this_interpreter() -> None:
    assert (sys.executable, "-m", PACKAGE.name) == COMMAND
    assert (PACKAGE / "__main__.py").is_file()


@pytest.mark.parametrize("inherited", [None, "", "/elsewhere"])
def test_this_very_package_is_found_first(inherited: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", "kept")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if inherited is not None:
        monkeypatch.setenv("PYTHONPATH", inherited)
    found = environment()
    folders = found["PYTHONPATH"].split(os.pathsep)
    # An empty entry would be the working directory.
    assert folders == [str(PACKAGE.parent), *([inherited] if inherited else [])]
    assert found["MARK"] == "kept"
    assert os.environ.get("PYTHONPATH") == inherited, "our own is not touched"
