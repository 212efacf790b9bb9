"""Reciprocal rank fusion: several orders of photos become one. Pure.

G. V. Cormack, C. L. A. Clarke, S. Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods, SIGIR 2009. Scores of CLIP and of a text search cannot be compared; places can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Ranking(NamedTuple):
    """Ids in order, the best first, none twice, and how much a place in this order counts."""

    ids: Sequence[str]
    weight: float


def fuse(rankings: Sequence[Ranking], *, k: int) -> list[str]:
    """Return every id of *rankings* once, the best first.

    Place r of a ranking, counted from 1, adds weight / (k + r). Equal sums keep the order of the first ranking that
    has them: where nothing tells two photos apart, they stay as Immich has them.
    """
    sums: dict[str, float] = {}
    for ids, weight in rankings:
        for place, photo in enumerate(ids, start=1):
            sums[photo] = sums.get(photo, 0.0) + weight / (k + place)
    return sorted(sums, key=lambda photo: -sums[photo])
