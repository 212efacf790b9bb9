"""Which routes of a running Triton are asleep: their models unloaded, because nobody has asked for so long."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from immich_triton.core.model_states import State, States
from immich_triton.server.own_time import OwnTime

SLOW_SECONDS: Final = 120.0
"""A model that takes longer to be loaded again than this is not only waking any more: whoever asks is told."""


@dataclass(frozen=True)
class Nap:
    """A route that has just fallen asleep, and the models to unload: those that no route needs that is awake."""

    route: str
    models: tuple[str, ...]


class Idle:
    """Decides; loads and unloads nothing itself. *minutes* without a request put a route to sleep, 0 never does.

    The supervisor's loop tells it what happens to the models and asks what to do; `use` and `states` may be called from
    any thread. A route is named by its folder in the repository. What no route names is always awake.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] | None = None) -> None:
        self.seconds = 60 * minutes
        self._clock = clock or OwnTime()
        self._lock = threading.Lock()
        self._routes: Mapping[str, tuple[str, ...]] = {}
        self._used: dict[str, float] = {}
        self._asleep: set[str] = set()
        self._unloaded: set[str] = set()
        self._waking: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._loading: frozenset[str] = frozenset()
        self._woken: list[str] = []

    def use(self, route: str) -> None:
        """Take note that a request for *route* is here; wake it when it sleeps."""
        with self._lock:
            now = self._clock()
            if route not in self._routes:
                return
            self._used[route] = now
            if route in self._asleep:
                self._asleep.remove(route)
                self._woken.append(route)
                self._waking |= {model: now for model in self._routes[route] if model in self._unloaded}

    def states(self) -> States:
        """Return how all routed models are."""
        with self._lock:
            now = self._clock()
            models = dict.fromkeys(model for models in self._routes.values() for model in models)
            found = {model: self._state(model, now) for model in models}
            reasons = {model: self._failed[model] for model, state in found.items() if state == "failed"}
            return States(found, reasons, self.seconds)

    def woken(self) -> list[str]:
        """Return the routes that woke since the last call."""
        with self._lock:
            self._clock()  # that of a process that is frozen has to be looked at often
            woken, self._woken = self._woken, []
            return woken

    def follow(self, routes: Mapping[str, tuple[str, ...]]) -> None:
        """Take the routes of the repository: what is new is awake, and its time begins now."""
        with self._lock:
            now = self._clock()
            self._used = {route: self._used.get(route, now) for route in routes}
            self._asleep &= routes.keys()
            self._routes = dict(routes)

    def begin(self, order: Iterable[str]) -> list[str]:
        """Return what of *order* a server that is new has to load; what sleeps goes on sleeping."""
        with self._lock:
            now = self._clock()
            asleep = [model for model in order if self._sleeps(model)]
            awake = [model for model in order if model not in asleep]
            # No time in which there was no server counts as time without requests.
            self._used = dict.fromkeys(self._used, now)
            self._unloaded, self._waking, self._failed = set(asleep), {}, {}
            self._loading = frozenset(awake)
            return awake

    def report(self, *, loading: Collection[str], failed: Mapping[str, str]) -> None:
        """Take what the server is loading for the first time, and what it could not load."""
        with self._lock:
            self._loading = frozenset(loading)
            self._failed = {model: why for model, why in self._failed.items() if model in self._unloaded} | dict(failed)

    def naps(self, is_well: Callable[[str], bool]) -> list[Nap]:
        """Put those routes to sleep that nobody asked for so long, and all of whose models are well.

        What is not well stays, and stays visible: asleep it would look as if it were.
        """
        found: list[Nap] = []
        if not self.seconds:
            return found
        with self._lock:
            now = self._clock()
            for route, models in self._routes.items():
                idle = now - self._used[route] >= self.seconds
                if route in self._asleep or not idle:
                    continue
                if self._unloaded.isdisjoint(models) and all(map(is_well, models)):
                    self._asleep.add(route)
                    tired = tuple(model for model in models if self._sleeps(model))
                    self._unloaded.update(tired)
                    found.append(Nap(route, tired))
        return found

    def sleeps(self, model: str) -> bool:
        """Tell whether Triton is not to have *model* now."""
        with self._lock:
            return self._sleeps(model)

    def puts_off(self, model: str) -> bool:
        """Tell whether *model*, which is new or changed, is to be loaded no sooner than its route is asked for."""
        with self._lock:
            if self._sleeps(model):
                self._unloaded.add(model)
                return True
            return False

    def to_load(self) -> set[str]:
        """Return the models that are unloaded and needed, without those that could not be loaded."""
        with self._lock:
            return {model for model in self._unloaded - self._failed.keys() if not self._sleeps(model)}

    def loaded(self, model: str) -> float | None:
        """Take note that Triton has *model* now; return the seconds that it took when it had been asleep."""
        with self._lock:
            self._failed.pop(model, None)
            self._unloaded.discard(model)
            since = self._waking.pop(model, math.nan)
            return None if math.isnan(since) else self._clock() - since

    def load_failed(self, model: str, reason: str) -> bool:
        """Take note that *model* could not be loaded; return whether it had been asleep."""
        with self._lock:
            self._waking.pop(model, None)
            if model in self._unloaded:
                self._failed[model] = reason
            return model in self._unloaded

    def forget(self, model: str) -> None:
        """Take note that *model* is not in the repository any more."""
        with self._lock:
            self._unloaded.discard(model)
            self._waking.pop(model, None)
            self._failed.pop(model, None)

    def _sleeps(self, model: str) -> bool:
        naming = [route for route, models in self._routes.items() if model in models]
        return bool(naming) and self._asleep.issuperset(naming)

    def _state(self, model: str, now: float) -> State:
        if self._sleeps(model):
            return "asleep"
        if model in self._failed:
            return "failed"
        if model in self._unloaded:
            return "waking" if now - self._waking.get(model, now) < SLOW_SECONDS else "loading"
        return "loading" if model in self._loading else "ready"
