"""How long to wait before something that died is started again."""

from __future__ import annotations

from typing import Final

PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before the next start after the n-th death in a row."""
STABLE_SECONDS: Final = 60.0
"""What lived this long was well: its death counts as the first again."""


class BackOff:
    """The pauses of one program."""

    def __init__(self) -> None:
        self._deaths = 0

    def after(self, lived: float) -> float:
        """Return the seconds to wait now that the program died after *lived* seconds (0 when it was not well)."""
        self._deaths = 1 if lived >= STABLE_SECONDS else self._deaths + 1
        return PAUSES[min(self._deaths, len(PAUSES)) - 1]
