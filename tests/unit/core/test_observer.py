"""Every event reaches every subscriber, and none of them can harm the request."""

from __future__ import annotations

import inspect
from typing import Any, override

import pytest

from immich_triton.core.observer import LOST, Observer, Observers, RequestDone

EVENTS = [name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if not name.startswith("_")]


class Listening(Observer):
    """Writes down what it is told, whatever the event."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    @override
    def __getattribute__(self, name: str) -> Any:
        if name in EVENTS:
            return lambda *values, **named: self.told.append((name, values, named))
        return super().__getattribute__(name)


class Broken(Observer):
    @override
    def fell_back(self, task: str) -> None:
        raise ValueError("a full disk")


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_passed_on_with_all_that_it_says(event: str) -> None:
    observers, first, second = Observers(), Listening(), Listening()
    observers.subscribe(first)
    observers.subscribe(second)
    parameters = list(inspect.signature(getattr(Observer, event)).parameters.values())[1:]
    positional = [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY]
    named = {one.name: one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    getattr(observers, event)(*positional, **named)
    assert first.told == second.told == [(event, tuple(positional), named)]
    assert getattr(Observer(), event)(*positional, **named) is None, "who overrides nothing does nothing"


def test_one_that_raises_harms_neither_the_request_nor_the_others(caplog: pytest.LogCaptureFixture) -> None:
    observers, after = Observers(), Listening()
    observers.subscribe(Broken())
    observers.subscribe(after)
    observers.fell_back("ocr")
    assert after.told == [("fell_back", ("ocr",), {})]
    assert "an observer failed" in caplog.text
    assert "a full disk" in caplog.text


def test_each_request_adds_up_a_time_of_its_own() -> None:
    first, second = (RequestDone(("ocr",), "triton", True, 200, "ok", 0.1) for _ in range(2))
    first.timing.waited += 1
    assert second.timing.waited == 0


def test_a_fault_of_the_request_loses_no_photo() -> None:
    assert {"ok", "bad_input", "protocol", "client_gone", "released", "upstream"}.isdisjoint(LOST)
