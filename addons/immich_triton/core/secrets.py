"""Secrets that an option points to, and never holds."""

from __future__ import annotations

import os
from pathlib import Path


def secret(name: str, value: str) -> str:
    """Return the secret that the option *name* points to with ``file:PATH`` or ``env:NAME``; empty when it is empty.

    The secret itself is refused: everybody on the machine can read a command line, and mitmweb shows all options.
    Raises ValueError; the message never holds the value.
    """
    if not value:
        return ""
    kind, colon, place = value.partition(":")
    if colon and kind == "file":
        try:
            found = Path(place).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{name}: cannot read {place}: {error}") from error
    elif colon and kind == "env":
        found = os.environ.get(place, "").strip()
    else:
        raise ValueError(
            f"{name} must be file:PATH or env:NAME, not the secret itself: everybody on this machine can read a "
            "command line. Write it to a file that only you can read, and give file:PATH of that"
        )
    if not found:
        raise ValueError(f"{name}: {value} is empty")
    return found
