"""Where things lie in a clone, and what the user's own folders are."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import places
import pytest

from immich_triton.core import paths


def test_in_a_clone_everything_lies_below_its_top_folder() -> None:
    assert not paths.INSTALLED
    assert places.PROJECT == paths.PROJECT == paths.DATA
    assert paths.PACKAGE == places.PROJECT / "addons/immich_triton"
    assert paths.MODELS == places.PROJECT / "triton_models"
    assert paths.RUN == places.PROJECT / ".run"
    assert paths.CACHE == places.PROJECT / ".cache"


def test_a_clone_that_may_not_be_written_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != places.PROJECT and may(path, mode))
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    try:
        apart = importlib.reload(paths)
        assert (apart.KEPT_APART, apart.INSTALLED) == (True, False)
        assert Path("/var/cache/immich-triton") == apart.CACHE
        assert Path("/state/immich-triton/run") == apart.RUN
        assert places.PROJECT / "triton_models" == apart.MODELS
    finally:
        monkeypatch.undo()
        importlib.reload(paths)


@pytest.mark.parametrize("value", [None, ""])
def test_a_folder_of_the_user_has_a_default(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_DATA_HOME", value)
    assert paths.home("XDG_DATA_HOME", ".local/share") == Path("/home/me/.local/share/immich-triton")


def test_the_user_chooses_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert paths.home("XDG_DATA_HOME", ".local/share") == Path("/data/immich-triton")
