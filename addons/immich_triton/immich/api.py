"""The few calls to Immich's own HTTP API that re-indexing and diagnosis need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import requests

from immich_triton.core import bounded_http
from immich_triton.core.bounded_http import Reply

_TIMEOUT: Final = 30.0


class ImmichError(Exception):
    """Immich cannot be asked, or refuses; the text says what and how to resolve it."""


@dataclass(frozen=True)
class MlSettings:
    """What the settings say about machine learning: *urls* are tried in this order until one answers."""

    urls: tuple[str, ...]
    enabled: bool
    clip_name: str


@dataclass(frozen=True)
class Queue:
    """The Smart Search queue: *active* jobs run now, *waiting* ones come after (delayed and paused ones included)."""

    active: int
    waiting: int
    paused: bool

    @property
    def left(self) -> int:
        """Jobs that are not finished."""
        return self.active + self.waiting


class Immich:
    """An Immich server at *url* (with or without ``/api``); *key* is an API key of an administrator."""

    def __init__(self, url: str, key: str) -> None:
        self._base = url.rstrip("/").removesuffix("/api") + "/api"
        self._headers = {"x-api-key": key}

    def version(self) -> str:
        """Return the server's version, such as ``2.7.5``."""
        answer = self._ask("GET", "/server/version")
        return ".".join(str(int(answer[part])) for part in ("major", "minor", "patch"))

    def ml_settings(self) -> MlSettings:
        """Return the machine-learning settings."""
        settings = self._ask("GET", "/system-config", "systemConfig.read")["machineLearning"]
        clip = settings["clip"]
        return MlSettings(
            tuple(map(str, settings["urls"])), bool(settings["enabled"] and clip["enabled"]), str(clip["modelName"])
        )

    def ml_models(self) -> dict[str, str]:
        """Return the model name of each machine-learning task that is switched on, by Immich's name of the task."""
        settings = self._ask("GET", "/system-config", "systemConfig.read")["machineLearning"]
        sections = {"clip": "clip", "facial-recognition": "facialRecognition", "ocr": "ocr"}  # ocr: since 2.2
        tasks = {task: settings[section] for task, section in sections.items() if section in settings}
        return {task: str(one["modelName"]) for task, one in tasks.items() if settings["enabled"] and one["enabled"]}

    def assets(self) -> int:
        """Return the number of photos and videos; each has one embedding (of a video, one frame's)."""
        statistics = self._ask("GET", "/server/statistics", "server.statistics")
        return int(statistics["photos"]) + int(statistics["videos"])

    def queue(self) -> Queue:
        """Return the state of the Smart Search queue."""
        queue = self._ask("GET", "/jobs", "job.read")["smartSearch"]
        counts = queue["jobCounts"]
        waiting = sum(int(counts[state]) for state in ("waiting", "delayed", "paused"))
        return Queue(int(counts["active"]), waiting, bool(queue["queueStatus"]["isPaused"]))

    def start(self, *, everything: bool) -> None:
        """Queue Smart Search for all photos (which empties the index first), or for those without an embedding."""
        self._ask("PUT", "/jobs/smartSearch", "job.create", json={"command": "start", "force": everything})

    def _ask(self, method: str, path: str, permission: str = "", **options: Any) -> Any:
        url = self._base + path
        try:
            response = bounded_http.ask(method, url, seconds=_TIMEOUT, headers=self._headers, **options)
        except requests.RequestException as error:
            raise ImmichError(f"{url} cannot be reached: {error}") from error
        if response.status == requests.codes.unauthorized:
            raise ImmichError(f"{url}: Immich does not accept the API key")
        if response.status == requests.codes.forbidden:
            raise ImmichError(
                f"{url}: the API key may not do this; it must be an administrator's, with the permission {permission}"
            )
        if not response.ok:
            raise ImmichError(f"{url}: Immich answered {response.status}: {_message(response)}")
        try:
            return response.json()
        except ValueError:
            raise ImmichError(f"{url} answered no JSON: is that an Immich server?") from None


def _message(response: Reply) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.body[:200].decode("utf-8", "replace")
