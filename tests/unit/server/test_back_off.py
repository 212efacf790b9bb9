"""How long to wait before something that died is started again."""

from __future__ import annotations

from immich_triton.server.back_off import PAUSES, STABLE_SECONDS, BackOff


def test_the_pause_grows_with_each_death_in_a_row_up_to_the_longest() -> None:
    back_off = BackOff()
    assert [back_off.after(0) for _ in PAUSES] == list(PAUSES)
    assert list(PAUSES) == sorted(PAUSES)
    assert back_off.after(STABLE_SECONDS - 0.1) == PAUSES[-1]


def test_what_lived_long_enough_begins_anew() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.after(0)
    assert back_off.after(STABLE_SECONDS) == PAUSES[0]
    assert back_off.after(0) == PAUSES[1]


def test_each_program_has_pauses_of_its_own() -> None:
    first, second = BackOff(), BackOff()
    first.after(0)
    assert second.after(0) == PAUSES[0]
