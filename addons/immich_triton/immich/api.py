"""Immich's own HTTP API: its words, one exchange, and what the key of an administrator may ask.

The gateway (after an outage), the site (in the name of its callers, `immich_triton.web.immich`) and the programs all
use this. A program runs a call with `asyncio.run`: the few that there are need no connection that is kept.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

KEY_HEADER: Final = "x-api-key"

SMART: Final = "/api/search/smart"
METADATA: Final = "/api/search/metadata"
"""The two searches, as every client of Immich spells them."""

JOBS: Final = "/api/assets/jobs"
"""Where the owner of photos has a job done for them again: ``{"assetIds": […], "name": "refresh-faces"}``."""

SERVER_PING: Final = "/api/server/ping"
"""Answered to anybody by an Immich that is up."""

TIMEOUT: Final = 30.0
LARGEST: Final = 4 << 20
"""Bytes of an answer to an administrator that are read."""
SHOWN: Final = 200
"""Bytes of an answer that is no message of Immich which are shown."""

SETTINGS: Final = (("/admin/config", "adminConfig.read"), ("/system-config", "systemConfig.read"))
"""Where the settings of the server stand, with the permission: since 3.2, and before. The old one stays until 4.0."""

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404

_MISSING: Final = re.compile(r"Missing required permission: (\S+)")


@dataclass(frozen=True)
class JobQueue:
    """A job queue of Immich: its *name* in the API, its *title* on the page of the administrator."""

    name: str
    title: str


QUEUES: Final[Mapping[str, JobQueue]] = {
    "clip": JobQueue("smartSearch", "Smart Search"),
    "ocr": JobQueue("ocr", "OCR"),
    "facial-recognition": JobQueue("faceDetection", "Face Detection"),
}
"""The queue of each machine-learning task."""

KEPT: Final = ("facial-recognition",)
"""Tasks of which Immich can run all without deleting what it has first: without ``force``, which is neither value."""

SECTIONS: Final[Mapping[str, str]] = {"clip": "clip", "facial-recognition": "facialRecognition", "ocr": "ocr"}
"""Where the settings speak of each task; of OCR since 2.2."""


class Unreachable(Exception):  # noqa: N818 - Immich is; who passes on what it says has no error of its own
    """Immich did not answer."""


class ImmichError(Exception):
    """Immich cannot be asked, or refuses; the text says what and how to resolve it.

    *status* is 0 without an answer; *permission* is the one that the key lacks, as far as that is known.
    """

    def __init__(self, text: str, status: int = 0, permission: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.permission = permission


class AlreadyRunning(ImmichError):  # noqa: N818 - what was asked for is being done
    """The queue is not started, since it runs."""


@dataclass(frozen=True)
class Answer:
    """What Immich answered; the content is no longer compressed."""

    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: Sequence[tuple[str, str]],
    content: bytes | None = None,
    within: float,
    at_most: int | None = None,
    follow: bool = False,
) -> Answer:
    """Send a request and return the answer, or the first *at_most* bytes of it; all of it takes *within* seconds.

    Redirects are an answer too, unless they are to be followed. Raises `Unreachable`.
    """
    if content is not None:
        headers = [*headers, ("content-type", "application/json")]
    try:
        async with session.request(
            method,
            URL(url, encoded=True),
            data=content,
            headers=headers,
            allow_redirects=follow,
            timeout=aiohttp.ClientTimeout(total=within),
        ) as response:
            body = await (response.read() if at_most is None else read_at_most(response, at_most))
    except TimeoutError as error:
        raise Unreachable(f"no answer within {within:g} s") from error
    except (aiohttp.ClientError, ValueError) as error:  # ValueError: the URL or a header is none
        raise Unreachable(str(error) or repr(error)) from error
    return Answer(response.status, tuple(response.headers.items()), body)


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body of a response, or its first *limit* bytes. Raises aiohttp.ClientError or TimeoutError."""
    read = bytearray()
    while len(read) < limit and (data := await response.content.read(limit - len(read))):
        read += data
    return bytes(read)


def asset(photo: str) -> str:
    """Return the path of a photo or video."""
    return f"/api/assets/{quote(photo, safe='')}"


def text_of(photo: str) -> str:
    """Return the path of the text in a photo."""
    return f"{asset(photo)}/ocr"


@dataclass(frozen=True)
class MlSettings:
    """What the settings say about machine learning: *urls* are tried in this order until one answers.

    *names* are the model names by Immich's name of the task, *on* the tasks that are switched on.
    """

    urls: tuple[str, ...]
    names: Mapping[str, str]
    on: frozenset[str]

    @property
    def models(self) -> dict[str, str]:
        """The model name of each task that is switched on."""
        return {task: name for task, name in self.names.items() if task in self.on}


@dataclass(frozen=True)
class QueueState:
    """A job queue: *active* jobs run now, *waiting* ones come after (delayed and paused ones included)."""

    active: int
    waiting: int
    paused: bool

    @property
    def left(self) -> int:
        """Jobs that are not finished."""
        return self.active + self.waiting


class Immich:
    """An Immich server at *url* (with or without ``/api``); *key* is an API key of an administrator.

    With *trust_env* it is asked as HTTP_PROXY and NO_PROXY say. What is asked raises `ImmichError`, and LookupError,
    TypeError, ValueError or AttributeError for what no Immich says.
    """

    whose_key: ClassVar[str] = "an administrator's, "
    """What a refusal for want of rights says of the key that is needed."""

    def __init__(self, url: str, key: str, *, trust_env: bool = False) -> None:
        self._base = url.rstrip("/").removesuffix("/api") + "/api"
        self._key = key
        self._trust_env = trust_env

    async def version(self) -> str:
        """Return the server's version, such as ``2.7.5``."""
        answer = await self._ask("/server/version")
        return ".".join(str(int(answer[part])) for part in ("major", "minor", "patch"))

    async def ml_settings(self) -> MlSettings:
        """Return the machine-learning settings."""
        settings = await self._machine_learning()
        tasks = {task: settings[section] for task, section in SECTIONS.items() if section in settings}
        return MlSettings(
            urls=tuple(map(str, settings["urls"])),
            names={task: str(one["modelName"]) for task, one in tasks.items()},
            on=frozenset(task for task, one in tasks.items() if settings["enabled"] and one["enabled"]),
        )

    async def assets(self) -> int:
        """Return the number of photos and videos; each has one embedding (of a video, one frame's)."""
        statistics = await self._ask("/server/statistics", "server.statistics")
        return int(statistics["photos"]) + int(statistics["videos"])

    async def queue(self, task: str) -> QueueState:
        """Return the state of the queue of *task*."""
        queue = (await self._ask("/jobs", "job.read"))[QUEUES[task].name]
        counts = queue["jobCounts"]
        waiting = sum(int(counts[state]) for state in ("waiting", "delayed", "paused"))
        return QueueState(int(counts["active"]), waiting, bool(queue["queueStatus"]["isPaused"]))

    async def start(self, task: str, *, everything: bool) -> None:
        """Queue *task* for all photos, or for those without a result.

        All of CLIP empties the index first, all of OCR deletes the text. Faces are found again and those that were
        known keep their person: what the page of the administrator calls *Refresh* (its *Reset* loses the names).
        Raises `AlreadyRunning` too.
        """
        force = {"force": everything} if not (everything and task in KEPT) else {}
        # Whatever stands in the answer: it is accepted.
        await self._exchange("PUT", f"/jobs/{QUEUES[task].name}", "job.create", {"command": "start", **force})

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(trust_env=self._trust_env) as session:
            yield session

    async def _machine_learning(self) -> Any:
        (path, permission), before = SETTINGS
        try:
            return (await self._ask(path, permission))["machineLearning"]
        except ImmichError as error:
            if error.status not in (FORBIDDEN, NOT_FOUND):
                raise
            refused = error
        try:
            # An Immich before 3.2, or a key that was made for one.
            return (await self._ask(*before))["machineLearning"]
        except ImmichError as error:
            if FORBIDDEN in (refused.status, error.status) and error.status in (FORBIDDEN, NOT_FOUND):
                # The permission of the place that this Immich has.
                raise (refused if refused.status == FORBIDDEN else error) from None
            raise

    async def _ask(self, path: str, permission: str = "", body: Mapping[str, Any] | None = None) -> Any:
        answer = await self._exchange("GET" if body is None else "POST", path, permission, body)
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            raise ImmichError(f"{self._base}{path} answered no JSON: is that an Immich server?") from None

    async def _exchange(self, method: str, path: str, permission: str, body: Mapping[str, Any] | None = None) -> Answer:
        url = self._base + path
        try:
            async with self._session() as session:
                answer = await exchange(
                    session,
                    method,
                    url,
                    headers=[(KEY_HEADER, self._key)],
                    content=None if body is None else orjson.dumps(body),
                    within=TIMEOUT,
                    at_most=LARGEST,
                    # A redirect of what changes something leads to a login page, whose 200 would look like success.
                    follow=method == "GET",
                )
        except Unreachable as error:
            raise ImmichError(f"{url} cannot be reached: {error}") from error
        if answer.status == UNAUTHORIZED:
            raise ImmichError(f"{url}: Immich does not accept the API key", answer.status)
        message = "" if 200 <= answer.status < 300 else _message(answer.content)
        if answer.status == FORBIDDEN:
            # Immich names it, unless the key is no administrator's.
            lacks = found[1] if (found := _MISSING.search(message)) else permission
            text = f"{url}: the API key may not do this; it must be {self.whose_key}with the permission {lacks}"
            raise ImmichError(text, answer.status, lacks)
        if not 200 <= answer.status < 300:
            kind = AlreadyRunning if answer.status == 400 and "already running" in message else ImmichError
            raise kind(f"{url}: Immich answered {answer.status}: {message}", answer.status)
        return answer


def _message(content: bytes) -> str:
    try:
        return str(orjson.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content[:SHOWN].decode("utf-8", "replace")
