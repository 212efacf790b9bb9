"""Keeps a proxy running: one that dies is started again, and what runs beside it is left alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from immich_triton.server.back_off import BackOff
from immich_triton.server.preflight import StartError
from immich_triton.server.processes import how_it_ended
from immich_triton.server.proxy_process import ProxyProcess

PROBE_SECONDS: Final = 0.5
"""Between two questions whether a proxy that was started answers."""
DEATHS: Final = 5
WITHIN_SECONDS: Final = 60.0
"""A gateway that dies so often within so long will not come up by starting it once more."""


class ProxyCare:
    """Looks after *proxy*; ``say`` gets one line at a time. Call `poll` several times a second after `start`.

    ``up`` tells whether the proxy has answered since it was started last. What was lost while it was away is not
    known here: the gateway itself sees at its start that the run before did not end in peace, and catches up.

    With a *name* the care ends with `StartError` when the proxy never answered, or dies again and again. Without one it
    never does: it goes on trying, every 30 seconds in the end. *beside* says what is not touched meanwhile.
    """

    def __init__(
        self,
        proxy: ProxyProcess,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        name: str = "",
        beside: str = "Triton goes on",
    ) -> None:
        self.up = False
        self._proxy = proxy
        self._say = say
        self._clock = clock
        self._name = name
        self._beside = beside
        self._was_up = False
        self._back_off = BackOff()
        self._deaths: list[float] = []
        self._began = 0.0
        self._start_again: float | None = None
        self._next_probe = 0.0

    def start(self) -> None:
        """Start the proxy. Raises OSError when this machine does not let us."""
        self._began, self._start_again = self._clock(), None
        self._proxy.start()

    def poll(self) -> None:
        """Start the proxy again when it died. Raises `StartError` when that is of no use."""
        now = self._clock()
        if self._start_again is not None:
            if now >= self._start_again:
                self._try_to_start()
        elif (code := self._proxy.exit_code()) is not None:
            self._died(how_it_ended(code))
        elif not self.up and now >= self._next_probe:
            self._next_probe = now + PROBE_SECONDS
            self._probe()

    def _try_to_start(self) -> None:
        try:
            self.start()
        except OSError as error:  # no memory, a run directory on a full disk
            self._died(f"cannot be started: {error}")

    def _probe(self) -> None:
        try:
            self.up = self._proxy.answers()
        except StartError as error:
            if not self._was_up and self._name:
                raise
            self._died(str(error))
            return
        if self.up and self._was_up:
            self._say(f"answers again after {self._clock() - self._began:.1f} s")
        self._was_up |= self.up

    def _died(self, how: str) -> None:
        self._proxy.end()
        now = self._clock()
        if self._name:
            self._give_up_when_useless(how, now)
        pause = self._back_off.after(now - self._began if self.up else 0.0)
        self._start_again = now + pause
        before = "" if self._was_up else " before it ever answered; its last lines above say why"
        self.up = False
        self._say(f"{how}{before}; starting it again in {pause:g} s, {self._beside}")

    def _give_up_when_useless(self, how: str, now: float) -> None:
        if not self._was_up:
            raise StartError(f"{self._name} {how} before it was ever ready; its last lines above say why")
        self._deaths = [when for when in self._deaths if now - when < WITHIN_SECONDS] + [now]
        if len(self._deaths) >= DEATHS:
            raise StartError(
                f"{self._name} {how}, the {DEATHS}th time within {WITHIN_SECONDS:.0f} s; its last lines above say why"
            )
