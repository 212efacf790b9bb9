"""Pages of a list that was ranked once. Pure.

Pages 1 to n are cut from the list. Behind them the pages of Immich's own search go on, from the first that reaches
beyond what the list was made of; what the list has shown already is left out of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Self

MOST_STOCK_PAGES: Final = 10
"""How many pages of Immich's in a row may turn out to hold nothing new, before we show an empty one as the last."""


@dataclass(frozen=True)
class Ranked:
    """A list of ids in order, without repeats.

    The first *depth* photos of Immich's own search are in it; *tail* is the route of that search, or empty when it has
    no more. *unproven* are those that only the database found, on pages that nobody has asked for yet: before such a
    page is cut Immich is asked, and what it does not show is left out as if it had never been there.
    """

    ids: tuple[str, ...]
    depth: int
    tail: str = ""
    unproven: frozenset[str] = frozenset()

    def pages(self, size: int) -> int:
        """Return how many pages of *size* the list fills."""
        return -(-len(self.ids) // size)

    def cut(self, page: int, size: int) -> tuple[str, ...]:
        """Return the ids of *page*."""
        return self.ids[(page - 1) * size : page * size]

    def to_prove(self, page: int, size: int) -> tuple[str, ...]:
        """Return the unproven ids up to the end of *page*, in order."""
        return tuple(photo for photo in self.ids[: page * size] if photo in self.unproven)

    def proven(self, asked: Collection[str], shown: Collection[str]) -> Self:
        """Return the list after Immich was *asked*: those that are not *shown* leave it, and later ones move up."""
        gone = {photo for photo in asked if photo not in shown}
        ids = tuple(photo for photo in self.ids if photo not in gone)
        return replace(self, ids=ids, unproven=self.unproven.difference(asked))

    def stock_page(self, page: int, size: int) -> int:
        """Return which page of Immich's search is shown as *page*, which lies behind the list."""
        return self.depth // size + page - self.pages(size)
