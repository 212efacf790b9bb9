"""When a request is sent again, and when it is given up."""

from __future__ import annotations

import pytest

from immich_triton.core.observer import FaultKind
from immich_triton.triton.attempts import ATTEMPTS, SENDS, SERVER, Attempts, Generations
from immich_triton.triton.inference import Poison, ServerFault, TritonError, Unavailable


def fault(kind: FaultKind, model: str = "") -> ServerFault:
    return ServerFault("it failed", kind=kind, model=model)


def replace(generations: Generations, model: str) -> None:
    generations.missed(model)
    generations.seen([model])


def test_a_model_that_was_away_and_is_back_is_another_one() -> None:
    generations = Generations()
    before = generations.of("net")
    generations.seen(["net"])
    generations.missed("net")
    assert generations.of("net") == before
    generations.seen(["other"])
    assert generations.of("net") == before
    generations.seen(["net"])
    assert generations.of("net") != before
    assert generations.of("other") == before


def test_with_the_server_all_its_models_are_other_ones() -> None:
    generations = Generations()
    before = generations.of("net"), generations.of(SERVER)
    generations.missed(SERVER)
    generations.seen(["other"])
    assert (generations.of("net") != before[0], generations.of(SERVER) != before[1]) == (True, True)


def test_the_second_death_of_the_same_model_is_the_end() -> None:
    generations = Generations()
    attempts = Attempts(generations)
    suspect = [attempts.suspect]
    assert attempts.failed(fault("process", "net")) is None
    suspect.append(attempts.suspect)
    assert suspect == [False, True]
    replace(generations, "net")
    end = attempts.failed(fault("process", "net"))
    assert isinstance(end, Poison)
    assert "poison: net died twice" in str(end)


def test_a_process_that_is_still_dead_has_not_died_again() -> None:
    """One of several hangs, and Triton gives it its share of the calls: any number of them may meet it."""
    attempts = Attempts(Generations())
    assert [attempts.failed(fault("process", "net")) for _ in range(4 * SENDS)] == [None] * 4 * SENDS


def test_who_is_sent_to_a_process_that_another_killed_before_did_not_die_over_it_again() -> None:
    """A neighbour of poison: in the first death by chance, then given to what the second one left behind."""
    generations = Generations()
    neighbour, poison = Attempts(generations), Attempts(generations)
    for attempts in (neighbour, poison):
        attempts.sending()
    assert [attempts.failed(fault("process", "net")) for attempts in (neighbour, poison)] == [None, None]
    replace(generations, "net")
    poison.sending()
    assert isinstance(poison.failed(fault("process", "net")), Poison)
    for _ in range(4 * SENDS):
        neighbour.sending()
        assert neighbour.failed(fault("process", "net")) is None
    replace(generations, "net")
    neighbour.sending()
    assert isinstance(neighbour.failed(fault("process", "net")), Poison)  # it was the only one there


def test_deaths_of_different_models_do_not_add_up_and_there_is_an_end() -> None:
    generations = Generations()
    attempts = Attempts(generations)
    ends: list[TritonError | None] = []
    for model in ("net", "pipe", "other", "fourth", "fifth"):
        ends.append(attempts.failed(fault("process", model)))
        replace(generations, model)
    assert ends[:-1] == [None] * (SENDS - 1)
    assert isinstance(ends[-1], Unavailable)


def test_a_server_that_ends_over_a_request_again_and_again_is_the_end_and_never_poison() -> None:
    """Somebody may have restarted it."""
    generations = Generations()
    attempts = Attempts(generations)
    for _ in range(ATTEMPTS - 1):
        assert attempts.failed(fault("broken")) is None
        replace(generations, SERVER)
    assert isinstance(attempts.failed(fault("broken")), Unavailable)


def test_a_connection_that_breaks_is_no_end_of_the_server() -> None:
    attempts = Attempts(Generations())
    assert [attempts.failed(fault("broken")) for _ in range(SENDS - 1)] == [None] * (SENDS - 1)
    assert isinstance(attempts.failed(fault("broken")), Unavailable)


@pytest.mark.parametrize("kind", ["unreachable", "unloaded"])
def test_what_was_not_executed_costs_nothing(kind: FaultKind) -> None:
    attempts = Attempts(Generations())
    assert [attempts.failed(fault(kind, "net")) for _ in range(100)] == [None] * 100


@pytest.mark.parametrize(
    ("kind", "sends", "end"),
    [
        ("status", ATTEMPTS, ServerFault),
        ("garbage", ATTEMPTS, ServerFault),
        ("memory", SENDS, Unavailable),
        ("busy", SENDS, Unavailable),
        ("timeout", SENDS, Unavailable),
    ],
)
def test_every_other_fault_has_so_many_sends(kind: FaultKind, sends: int, end: type[TritonError]) -> None:
    attempts = Attempts(Generations())
    outcomes = [attempts.failed(fault(kind)) for _ in range(sends)]
    assert outcomes[:-1] == [None] * (sends - 1)
    assert type(outcomes[-1]) is end
