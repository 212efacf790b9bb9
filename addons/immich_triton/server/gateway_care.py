"""Keeps the gateway running: one that dies is started again, and Triton with its loaded models is left alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from immich_triton.server.back_off import BackOff
from immich_triton.server.gateway_process import GatewayProcess
from immich_triton.server.preflight import StartError
from immich_triton.server.processes import how_it_ended

PROBE_SECONDS: Final = 0.5
"""Between two questions whether a gateway that was started answers."""
DEATHS: Final = 5
WITHIN_SECONDS: Final = 60.0
"""A gateway that dies so often within so long will not come up by starting it once more."""


class GatewayCare:
    """Looks after *gateway*; ``say`` gets one line at a time. Call `poll` several times a second after `start`.

    ``up`` tells whether the gateway has answered since it was started last. What was lost while it was away is not
    known here: the gateway itself sees at its start that the run before did not end in peace, and catches up.
    """

    def __init__(
        self, gateway: GatewayProcess, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.up = False
        self._gateway = gateway
        self._say = say
        self._clock = clock
        self._was_up = False
        self._back_off = BackOff()
        self._deaths: list[float] = []
        self._began = 0.0
        self._start_again: float | None = None
        self._next_probe = 0.0

    def start(self) -> None:
        """Start the gateway. Raises OSError when this machine does not let us."""
        self._began, self._start_again = self._clock(), None
        self._gateway.start()

    def poll(self) -> None:
        """Start the gateway again when it died. Raises `StartError` when it never answered, or dies again and again."""
        now = self._clock()
        if self._start_again is not None:
            if now >= self._start_again:
                self._try_to_start()
        elif (code := self._gateway.exit_code()) is not None:
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
            self.up = self._gateway.answers()
        except StartError as error:
            if not self._was_up:
                raise
            self._died(str(error))
            return
        if self.up and self._was_up:
            self._say(f"answers again after {self._clock() - self._began:.1f} s")
        self._was_up |= self.up

    def _died(self, how: str) -> None:
        self._gateway.end()
        if not self._was_up:
            raise StartError(f"the gateway {how} before it was ever ready; its last lines above say why")
        now = self._clock()
        self._deaths = [when for when in self._deaths if now - when < WITHIN_SECONDS] + [now]
        if len(self._deaths) >= DEATHS:
            raise StartError(
                f"the gateway {how}, the {DEATHS}th time within {WITHIN_SECONDS:.0f} s; its last lines above say why"
            )
        pause = self._back_off.after(now - self._began if self.up else 0.0)
        self._start_again = now + pause
        self.up = False
        self._say(f"{how}; starting it again in {pause:g} s, Triton goes on")
