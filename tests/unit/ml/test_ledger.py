"""A CLIP name that was once ours stays ours until a person gives it up."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_triton.core import state_file
from immich_triton.ml.ledger import Ledger, LedgerError


def test_remembers_across_restarts(tmp_path: Path) -> None:
    Ledger(tmp_path / "state").own("a", "1" * 64)
    again = Ledger(tmp_path / "state")
    assert again.owned() == {"a": "1" * 64}


def test_notices_what_another_process_wrote(tmp_path: Path) -> None:
    mine, other = Ledger(tmp_path), Ledger(tmp_path)
    assert mine.owned() == {}
    other.own("a", "1" * 64)
    assert mine.owned() == {"a": "1" * 64}
    assert other.forget("a")
    assert mine.owned() == {}
    assert not mine.forget("a")


def test_of_two_gateways_the_first_one_owns(tmp_path: Path) -> None:
    mine, other = Ledger(tmp_path), Ledger(tmp_path)
    assert mine.owned() == other.owned() == {}
    assert mine.own("a", "1" * 64) == "1" * 64
    assert other.own("a", "2" * 64) == "1" * 64
    assert other.own("b", "3" * 64) == "3" * 64
    assert mine.owned() == {"a": "1" * 64, "b": "3" * 64}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "clip": {}}',
        '{"version": 1, "clip": {"a": 1}}',
        '{"version": 1, "clip": []}',
        '{"version": 1, "clip": ["a"]}',
        '{"version": 1, "clip": null}',
        '{"version": 1, "clip": {"a": {"weights_sha256": ["1"]}}}',
        '{"version": 1, "clip": ' + "[" * 5_000 + "]" * 5_000 + "}",
        "[" * 100_000,
        "\x00\xff",
    ],
    ids=lambda text: text[:40],
)
def test_a_damaged_ledger_is_an_error_and_not_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "owned.json").write_text(text, encoding="latin-1")
    with pytest.raises(LedgerError):
        Ledger(tmp_path).owned()


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="immich_state_dir"):
        Ledger(Path("/proc/immich-triton")).own("a", "1" * 64)


def test_a_lock_that_is_not_given_back_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_file, "PATIENCE", 0.05)
    ledger = Ledger(tmp_path)
    with state_file.exclusive(ledger.path):
        for other in (ledger, Ledger(tmp_path)):
            with pytest.raises(LedgerError, match=r"another process holds .*\.owned\.json\.lock"):
                other.own("a", "1" * 64)
        assert ledger.owned() == {}  # to read takes no lock
    ledger.own("a", "1" * 64)
    assert ledger.owned() == {"a": "1" * 64}
