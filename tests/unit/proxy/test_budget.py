"""How many bytes of bodies may be held at the same time."""

from __future__ import annotations

from immich_triton.proxy.budget import Budget


def test_bytes_are_taken_up_to_the_limit_and_given_back() -> None:
    budget = Budget(10)
    assert budget.take(4)
    assert budget.take(6)
    assert not budget.take(1)
    assert budget.held == 10, "nothing is taken by who gets nothing"
    budget.free(6)
    assert not budget.take(7)
    assert budget.take(6)


def test_what_must_not_wait_is_taken_over_the_limit_and_counts() -> None:
    budget = Budget(10)
    budget.take_anyway(11)
    assert budget.held == 11
    assert not budget.take(0)
    budget.free(11)
    assert budget.take(10)


def test_a_lower_limit_counts_for_those_who_come() -> None:
    budget = Budget(10)
    assert budget.take(8)
    budget.limit = 5
    assert not budget.take(1)
    budget.free(8)
    assert budget.take(5)
