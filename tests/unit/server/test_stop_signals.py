"""Ctrl-C, SIGTERM and a closed terminal as something to ask for."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from immich_triton.server.stop_signals import SIGNALS, StopSignals


@pytest.fixture(autouse=True)
def as_they_were() -> Iterator[None]:
    """Whatever a test does: this process ends by the signals that it ended by before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_counted_and_ends_nothing(number: signal.Signals) -> None:
    with StopSignals() as stop:
        assert not stop.wait(0)
        signal.raise_signal(number)
        assert stop.wait(3600), "nobody sleeps who was asked to stop"
        signal.raise_signal(number)
        assert stop.count == 2


def test_afterwards_they_do_what_they_did() -> None:
    def handler(_number: int, _frame: object) -> None:
        pass

    signal.signal(signal.SIGTERM, handler)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) is not handler
    assert signal.getsignal(signal.SIGTERM) is handler
    with pytest.raises(ZeroDivisionError), StopSignals():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGTERM) is handler


def test_who_ignores_the_terminal_goes_on_to_do_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.count == 0
        signal.raise_signal(signal.SIGINT)
        assert stop.count == 1
    assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGINT) == signal.SIG_IGN
