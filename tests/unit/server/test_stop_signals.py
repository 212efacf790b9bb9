"""Ctrl-C, SIGTERM and a closed terminal as something to ask for.

Every test sends them to a process of its own: one that went wrong would end the worker that runs the tests.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from textwrap import dedent

import pytest

from immich_triton.core.paths import PACKAGE
from immich_triton.server.stop_signals import SIGNALS

BEGINNING = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from immich_triton.server.stop_signals import SIGNALS, StopSignals
for number in SIGNALS:  # as in a terminal, also where the tests are a background job that ignores them
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
"""


def run(code: str, *arguments: int) -> None:
    """Run *code*, in which ``raised`` holds *arguments*; it must come to its end."""
    program = f"{BEGINNING}raised = [int(one) for one in sys.argv[2:]]\n{dedent(code)}\nprint('at the end')"
    line = [sys.executable, "-I", "-c", program, str(PACKAGE.parent), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "at the end\n"), done.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_counted_and_ends_nothing(number: signal.Signals) -> None:
    run(
        """
        with StopSignals() as stop:
            assert not stop.wait(0)
            signal.raise_signal(raised[0])
            assert stop.wait(3600), "nobody sleeps who was asked to stop"
            signal.raise_signal(raised[0])
            assert stop.count == 2
        """,
        number,
    )


def test_afterwards_they_do_what_they_did() -> None:
    run(
        """
        def handler(_number, _frame):
            pass

        signal.signal(signal.SIGTERM, handler)
        with StopSignals():
            assert signal.getsignal(signal.SIGTERM) is not handler
        assert signal.getsignal(signal.SIGTERM) is handler
        try:
            with StopSignals():
                1 / 0
        except ZeroDivisionError:
            assert signal.getsignal(signal.SIGTERM) is handler
        else:
            raise AssertionError("an error in the block is the caller's")
        """
    )


def test_who_ignores_the_terminal_goes_on_to_do_so() -> None:
    run(
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.count == 0
            signal.raise_signal(signal.SIGINT)
            assert stop.count == 1
        assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        """
    )
