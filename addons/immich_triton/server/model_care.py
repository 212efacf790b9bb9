"""What a running Triton does not do by itself.

Load the models in a useful order, replace a model's dead or hanging process and end what it leaves behind, notice new
and changed models, unload those that nobody asks for and load them again when somebody does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from immich_triton.server.idle import Idle
from immich_triton.server.triton_control import ModelControl, Outcome
from immich_triton.server.triton_models import RepositoryWatch
from immich_triton.server.triton_stubs import Stub, StubWatch

LOOK_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = (5.0, 10.0, 30.0, 60.0)
"""Pauses before a model is loaded again that could not be, after its process had died."""


@dataclass
class _Lost:
    """A model whose process died: how often it could not be loaded since, and when to try next (own time)."""

    failures: int = 0
    due: float = math.inf

    def failed(self, now: float) -> float:
        """Plan the next attempt; return the seconds until then."""
        pause = AGAIN_SECONDS[min(self.failures, len(AGAIN_SECONDS) - 1)]
        self.failures += 1
        self.due = now + pause
        return pause


class Caretaker:
    """Looks after one server; ``say`` gets a line for the terminal when something happens.

    ``starting`` are the models of `load` that were not tried yet, ``errors`` says which of them could not be loaded
    and why. A process that served a model before it was loaded again has *leave_seconds* for its last requests.
    *clock* as in `StubWatch`.
    """

    def __init__(
        self,
        stubs: StubWatch,
        repository: RepositoryWatch,
        control: ModelControl,
        say: Callable[[str], None],
        leave_seconds: float,
        clock: Callable[[], float],
        idle: Idle | None = None,
    ) -> None:
        self.starting: set[str] = set()
        self.errors: dict[str, str] = {}
        self._stubs = stubs
        self._repository = repository
        self._control = control
        self._say = say
        self._leave_seconds = leave_seconds
        self._clock = clock
        self._idle = idle or Idle(0)
        self._dead: set[Stub] = set()
        self._former: dict[str, set[Stub]] = {}
        self._leaving: dict[Stub, float] = {}
        self._lost: dict[str, _Lost] = {}
        self._changes: dict[str, str] = {}
        self._next = 0.0

    def load(self, models: Iterable[str]) -> None:
        """Have the models of a server that has just started loaded, in this order."""
        for model in models:
            if self._control.ask(model, "load", urgent=False):
                self.starting.add(model)

    def poll(self, healthy: Callable[[str], bool]) -> None:
        """Look, once a second.

        *healthy* tells which models were loaded. Only those are loaded again: one that crashes while it loads would do
        so for ever.
        """
        now = self._clock()
        for outcome in self._control.outcomes():
            self._take(outcome, now)
        self._wake()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        self._stubs.look()
        self._end_what_hangs()
        self._replace_the_dead(healthy)
        self._end_what_was_replaced(now)
        for model, lost in self._lost.items():
            # A lack of memory that killed a process may last for a while.
            if now >= lost.due and self._control.ask(model, "load"):
                lost.due = math.inf
        self._follow_the_files()
        self._idle.follow(self._repository.routes())
        self._put_to_sleep(healthy)

    def complain(self, instance: str) -> None:
        """Take note that Triton called the process of an instance unhealthy."""
        self._stubs.complain(instance)

    def close(self) -> None:
        """Forget the server."""
        self._control.close()

    def _take(self, outcome: Outcome, now: float) -> None:
        model = outcome.model
        self._stubs.look()  # a process has to be seen alive to know later whose it was
        former = self._former.pop(model, set())
        if outcome.unloaded:
            self._leaving |= dict.fromkeys(former, now + self._leave_seconds)
        if model in self.starting:
            self.starting.remove(model)
            if outcome.error:
                self.errors[model] = outcome.error
        if "load" not in outcome.actions:
            if outcome.error:
                self._say(f"model {model} could not be unloaded: {outcome.error}")
            return
        if not outcome.error:
            self._lost.pop(model, None)
            if (seconds := self._idle.loaded(model)) is not None:
                self._say(f"model {model} is awake after {seconds:.1f} s")
        elif self._idle.load_failed(model, outcome.error):
            self._lost.setdefault(model, _Lost())
        if outcome.error and model in self._lost:
            pause = self._lost[model].failed(now)
            self._say(f"model {model} could not be loaded again; next attempt in {pause:g} s")

    def _end_what_hangs(self) -> None:
        for stub in self._stubs.hung():
            self._say(f"process {stub.pid} of model {stub.model} is stopped or does not answer; ending it")
            self._stubs.end(stub)
            self._dead.add(stub)
            # When that was while the model was being loaded, it is no fault of the model.
            self._lost.setdefault(stub.model, _Lost())

    def _replace_the_dead(self, healthy: Callable[[str], bool]) -> None:
        self._dead |= self._stubs.died()
        self._dead -= self._leaving.keys() | set().union(*self._former.values())
        for model in sorted({stub.model for stub in self._dead}):
            dead = {stub for stub in self._dead if stub.model == model}
            if healthy(model) and not self._idle.sleeps(model):
                # All that serves the model now is replaced. Triton waits for the requests that the dead one never
                # answers before it ends the others, that is for ever: so a lack of memory would cost more memory.
                former = self._stubs.of(model) | dead
                if not self._control.ask(model, "unload", "load"):
                    continue  # something is being done to it: at the next look
                self._former[model] = former
                self._lost.setdefault(model, _Lost())
                self._say(f"a process of model {model} died (out of memory? see dmesg); loading the model again")
            self._dead -= dead

    def _end_what_was_replaced(self, now: float) -> None:
        for stub, deadline in list(self._leaving.items()):
            if stub not in self._stubs.of(stub.model):
                del self._leaving[stub]
            elif now >= deadline:
                self._say(f"process {stub.pid} stayed when model {stub.model} was unloaded; ending it")
                self._stubs.end(stub)
                del self._leaving[stub]

    def _follow_the_files(self) -> None:
        self._changes |= self._repository.changes()
        for model, action in sorted(self._changes.items()):
            former = self._stubs.of(model)
            if action == "load" and self._idle.puts_off(model):
                del self._changes[model]
                self._say(f"the files of model {model} changed; it sleeps, and will be loaded with them")
                continue
            if not self._control.ask(model, action):
                continue  # something is being done to it, perhaps with the old files: at the next look
            del self._changes[model]
            if action == "unload":
                self._idle.forget(model)
                self._former[model] = former
            self._say(f"the files of model {model} {'changed' if action == 'load' else 'are gone'}; {action}ing it")

    def _put_to_sleep(self, healthy: Callable[[str], bool]) -> None:
        def is_well(model: str) -> bool:
            troubled = model in self.starting or model in self._lost or model in self._changes
            return healthy(model) and not troubled and not self._control.is_busy(model)

        for nap in self._idle.naps(is_well):
            models = ", ".join(nap.models) or "nothing that others do not need"
            self._say(f"nobody asked for {nap.route} in {self._idle.seconds / 60:g} minutes; unloading {models}")
            for model in nap.models:
                former = self._stubs.of(model)
                if self._control.ask(model, "unload"):
                    self._former[model] = former

    def _wake(self) -> None:
        for route in self._idle.woken():
            self._say(f"somebody asks for {route}; loading its models again")
        if tired := self._idle.to_load():
            for model in self._repository.in_order(tired):
                if not self._control.is_busy(model):
                    self._control.ask(model, "load")
