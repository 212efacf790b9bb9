"""Pages of a list that was ranked once. Pure.

Pages 1 to n are cut from the list. Behind them the pages of Immich's own search go on, from the first that reaches
beyond what the list was made of; what the list has shown already is left out of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_STOCK_PAGES: Final = 10
"""How many pages of Immich's in a row may turn out to hold nothing new, before we show an empty one as the last."""


@dataclass(frozen=True)
class Ranked:
    """A list of ids in order, without repeats.

    The first *depth* photos of Immich's own search are in it; *tail* is the route of that search, or empty when it has
    no more.
    """

    ids: tuple[str, ...]
    depth: int
    tail: str = ""

    def pages(self, size: int) -> int:
        """Return how many pages of *size* the list fills."""
        return -(-len(self.ids) // size)

    def cut(self, page: int, size: int) -> tuple[str, ...]:
        """Return the ids of *page*."""
        return self.ids[(page - 1) * size : page * size]

    def stock_page(self, page: int, size: int) -> int:
        """Return which page of Immich's search is shown as *page*, which lies behind the list."""
        return self.depth // size + page - self.pages(size)
