"""Time as this process lived it."""

from __future__ import annotations

import pytest

from immich_triton.server.own_time import LONGEST_STEP, OwnTime


def test_what_a_frozen_container_lost_is_not_counted() -> None:
    wall = iter([100.0, 100.0, 100.5, 3700.5, 3701.0])
    clock = OwnTime(lambda: next(wall))
    assert clock() == 0
    assert clock() == pytest.approx(0.5)
    assert clock() == pytest.approx(0.5 + LONGEST_STEP)
    assert clock() == pytest.approx(1 + LONGEST_STEP)


def test_by_itself_it_goes_on_and_never_back() -> None:
    clock = OwnTime()
    looks = [clock() for _ in range(10)]
    assert looks == sorted(looks)
    assert looks[0] >= 0
