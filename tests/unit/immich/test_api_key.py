"""Immich's API key for a program of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from immich_triton.immich import api_key


def option(*arguments: str) -> str:
    parser = argparse.ArgumentParser()
    api_key.add_option(parser)
    given: str = parser.parse_args(arguments).api_key
    return given


def test_by_default_it_is_in_the_environment_or_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(api_key.VARIABLE, raising=False)
    assert api_key.read(option()) == ""
    monkeypatch.setenv(api_key.VARIABLE, "a secret")
    assert api_key.read(option()) == "a secret"


def test_where_it_is_said_to_be_it_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("a secret\n")
    assert api_key.read(option("--api-key", f"file:{tmp_path}/key")) == "a secret"
    monkeypatch.delenv("OTHER", raising=False)
    with pytest.raises(ValueError, match="--api-key: env:OTHER is empty"):
        api_key.read(option("--api-key", "env:OTHER"))
    with pytest.raises(ValueError, match="--api-key must be file:PATH or env:NAME") as caught:
        api_key.read(option("--api-key", "the-key-itself"))
    assert "the-key-itself" not in str(caught.value)


def test_the_help_says_where_it_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        option("--help")
    assert f"env:{api_key.VARIABLE}" in capsys.readouterr().out
