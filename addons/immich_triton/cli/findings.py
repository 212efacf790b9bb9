"""What a diagnosis says: findings, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.text import Text

Level = Literal["ok", "note", "warning", "error"]

SIGNS: dict[Level, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "note": ("·", "blue"),
    "warning": ("!", "yellow"),
    "error": ("✗", "bold red"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``fix`` is what to do; an error or a warning has one."""

    level: Level
    text: str
    fix: str = ""


def ok(text: str) -> Finding:
    """Return a finding that all is well."""
    return Finding("ok", text)


def note(text: str) -> Finding:
    """Return what is worth to know, and no fault."""
    return Finding("note", text)


def warning(text: str, fix: str) -> Finding:
    """Return what works, but not as one may expect."""
    return Finding("warning", text, fix)


def error(text: str, fix: str) -> Finding:
    """Return what does not work."""
    return Finding("error", text, fix)


def show(title: str, findings: Iterable[Finding], console: Console) -> list[Finding]:
    """Print findings as they are made, and return them. What cannot be looked at is a finding as well."""
    console.print(Text(title, style="bold"))
    seen = []
    for finding in _to_the_end(findings):
        sign, style = SIGNS[finding.level]
        console.print(Text.assemble("  ", (sign, style), " ", finding.text), soft_wrap=True)
        if finding.fix:
            console.print(Text(f"      → {finding.fix}"), soft_wrap=True)
        seen.append(finding)
    return seen


def _to_the_end(findings: Iterable[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except Exception as problem:  # noqa: BLE001 - whatever it is, the other parts are to be looked at
        yield error(
            f"this could not be looked at to the end: {problem!r}",
            "something answered what nobody expects; correct the address, or report it as a fault of this program",
        )
