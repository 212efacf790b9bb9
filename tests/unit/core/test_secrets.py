"""Secrets that an option points to, and never holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_triton.core.secrets import secret

SECRET = "hunter2-correct-horse"  # noqa: S105 - of nobody


def test_an_option_without_a_value_has_no_secret() -> None:
    assert secret("immich_api_key", "") == ""


def test_it_is_read_from_where_the_option_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a:b").write_text(f" {SECRET}\n")
    monkeypatch.setenv("KEY", f"{SECRET} ")
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (f"file:{tmp_path}/a:b", "file:~/a:b", "env:KEY"):
        assert secret("immich_api_key", value) == SECRET


@pytest.mark.parametrize("value", [SECRET, f"http:{SECRET}", f"FILE:{SECRET}", f"env {SECRET}"])
def test_the_secret_itself_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ValueError, match="immich_api_key must be file:PATH or env:NAME") as caught:
        secret("immich_api_key", value)
    assert SECRET not in str(caught.value)


def test_what_cannot_be_read_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "blank").write_text(" \n")
    monkeypatch.delenv("KEY", raising=False)
    for name in ("missing", "binary"):
        with pytest.raises(ValueError, match=f"immich_api_key: cannot read .*{name}"):
            secret("immich_api_key", f"file:{tmp_path}/{name}")
    for value in (f"file:{tmp_path}/blank", "env:KEY"):
        with pytest.raises(ValueError, match=f"immich_api_key: {value} is empty"):
            secret("immich_api_key", value)
