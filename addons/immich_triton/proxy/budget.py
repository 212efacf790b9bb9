"""How many bytes of bodies may be held at the same time."""

from __future__ import annotations


class Budget:
    """Bytes that may be held at the same time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, count: int) -> bool:
        """Take *count* bytes; False, and nothing taken, when that would be too many."""
        if self.held + count > self.limit:
            return False
        self.held += count
        return True

    def take_anyway(self, count: int) -> None:
        """Take *count* bytes even over the limit."""
        self.held += count

    def free(self, count: int) -> None:
        """Give *count* bytes back."""
        self.held -= count
