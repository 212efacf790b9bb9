"""Ctrl-C, SIGTERM and a closed terminal as something to ask for."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object] | int | None


class StopSignals:
    """While the block lasts, the signals that ask to stop are counted instead of ending the program."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> StopSignals:
        for number in SIGNALS:
            # nohup ignores SIGHUP on purpose.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> bool:
        """Sleep *seconds* unless one of the signals came since the block began; return whether one came."""
        # No threading.Event: its lock may be held at the moment when the handler wants it.
        if not self.count:
            time.sleep(seconds)
        return self.count > 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
