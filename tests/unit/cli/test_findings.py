"""What a diagnosis says, and that it says it to the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rich.console import Console

from immich_triton.cli.findings import SIGNS, Finding, Level, error, note, ok, show, warning


@pytest.fixture
def console() -> Console:
    return Console(width=40, record=True)


def test_each_kind_has_a_sign(console: Console) -> None:
    said: list[Finding] = [ok("well"), note("known"), warning("odd", "mend it"), error("broken", "replace it")]
    assert [one.level for one in said] == list(SIGNS)
    assert show("A part", iter(said), console) == said
    assert console.export_text().splitlines() == [
        "A part",
        "  ✓ well",
        "  · known",
        "  ! odd",
        "      → mend it",
        "  ✗ broken",
        "      → replace it",
    ]


@pytest.mark.parametrize("level", SIGNS)
def test_a_text_is_not_broken_and_no_markup(console: Console, level: Level) -> None:
    text = "[bold]" + "a long address " * 10 + "[/nothing]"
    show("", [Finding(level, text)], console)
    assert text in console.export_text()


def test_what_cannot_be_looked_at_is_a_finding_too(console: Console) -> None:
    def broken() -> Iterator[Finding]:
        yield ok("the first part")
        raise ValueError("nobody expects this")

    first, last = show("A part", broken(), console)
    assert first == ok("the first part")
    assert (last.level, "nobody expects this" in last.text, bool(last.fix)) == ("error", True, True)
