"""What the log of a Triton tells the person at the terminal, and the supervisor: models that came up or did not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from immich_triton.server import preflight
from immich_triton.server.triton_log import Event, Kind
from immich_triton.server.triton_settings import TritonSettings

REPEAT_SECONDS: Final = 60.0
"""A warning that comes again within this time is written to the log only."""


class Report:
    """What is known of one server after the other; ``say`` gets one line at a time.

    ``loaded`` and ``failed`` (with the reason) are models, ``errors`` the last error messages.
    """

    def __init__(self, settings: TritonSettings, say: Callable[[str], None]) -> None:
        self.loaded: list[str] = []
        self.failed: dict[str, str] = {}
        self.errors: list[str] = []
        self._settings = settings
        self._say = say
        self._backend = ""
        self._said: dict[str, float] = {}

    def begin(self) -> None:
        """Begin anew with another server."""
        self.loaded, self.failed, self.errors, self._backend = [], {}, [], ""

    def take(self, event: Event, elapsed: str) -> None:
        """Say what happened; *elapsed* says how long a model took to be loaded."""
        match event.kind:
            case Kind.LOADED:
                self.failed.pop(event.model, None)
                if event.model not in self.loaded:
                    self.loaded.append(event.model)
                self._say(f"{event.model} loaded{elapsed}")
            case Kind.FAILED:
                self.fail(event.model, event.text)
            case Kind.BACKEND:
                self._tell_backend(event.text)
            case Kind.UNHEALTHY | Kind.WARNING | Kind.ERROR:
                self._warn(event)

    def fail(self, model: str, reason: str) -> None:
        """Take note that *model* could not be loaded, and why."""
        reason = preflight.missing_files(self._settings.models / model) or reason
        if self.failed.get(model) != reason:
            self.failed[model] = reason
            self._say(f"model {model} could not be loaded: {reason}")

    def _tell_backend(self, file: str) -> None:
        if file != self._backend:
            self._backend = file
            name = "the embedded Python-based backend" if file.endswith(".py") else "the C++ backend"
            path = self._settings.run_dir / "backends/onnxruntime" / file
            self._say(f"ONNX models are served by {name}, {path.resolve()}")

    def _warn(self, event: Event) -> None:
        if event.kind is not Kind.WARNING:
            self.errors = [*self.errors[-9:], event.text]
        now = time.monotonic()
        self._said = {text: when for text, when in self._said.items() if now - when < REPEAT_SECONDS}
        if event.text not in self._said:
            self._said[event.text] = now
            self._say(f"{'warning' if event.kind is Kind.WARNING else 'error'}: {event.text}")
