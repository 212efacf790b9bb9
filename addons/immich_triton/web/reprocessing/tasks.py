"""What can be done again for a photo, the requests that ask for it, and the job of Immich's that does it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from immich_triton.immich.api import JOBS
from immich_triton.web.small_json import has_body, is_small_json

if TYPE_CHECKING:
    from mitmproxy.http import Request

STATUS: Final = re.compile(r"/api/immich-triton/reprocess/([^/?]+)(?:\?.*)?")
MOST_PHOTOS: Final = 1000

NOBODYS: Final = "00000000-0000-4000-8000-000000000000"
"""An id that no asset has, to be asked about in the place of what is no id at all: Immich says who may not ask."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Task:
    """A job of Immich's: its *queue* and *job* name in BullMQ, and the *data* it takes beside the photo's id."""

    name: str
    queue: str
    job: str
    data: Mapping[str, str]

    def job_id(self, photo: str) -> str:
        """Return an id that is the same for the same photo: while such a job waits or runs, no second one is made."""
        return f"immich-triton-{self.name}-{photo}"


REFRESH_OCR: Final = Task("refresh-ocr", "ocr", "Ocr", {})
# No API shows a vector. But when the job of an *upload* has made one, Immich looks for duplicates next, and only then:
# that is how the outcome is known (see vectors.py).
REFRESH_CLIP: Final = Task("refresh-clip", "smartSearch", "SmartSearch", {"source": "upload"})
TASKS: Final[Mapping[str, Task]] = {task.name: task for task in (REFRESH_OCR, REFRESH_CLIP)}


@dataclass(frozen=True)
class Order:
    """*task* for *photos*, each once. *wrong* says what is wrong with the request, if anything is."""

    task: Task
    photos: tuple[str, ...]
    wrong: str = ""


def is_order(request: Request) -> bool:
    """Whether a request may be an order: its body tells it from one for ``refresh-faces`` and its like."""
    return is_small_json(request, (JOBS,))


def asked_about(request: Request) -> str | None:
    """Return the id in a request for the state of a photo, as it came; None for any other request.

    One with a body is none of ours: the body would have to be kept.
    """
    found = STATUS.fullmatch(request.path) if request.method == "GET" and not has_body(request) else None
    return found[1] if found else None


def parse(content: bytes) -> Order | None:
    """Return what the body of a request to `JOBS` orders; None when Immich is to answer it."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    name = body.get("name") if isinstance(body, dict) else None
    task = TASKS.get(name) if isinstance(name, str) else None
    if task is None:
        return None
    ids = body.get("assetIds")
    if not isinstance(ids, list) or not 1 <= len(ids) <= MOST_PHOTOS:
        return Order(task, (), f"assetIds must be a list of 1 to {MOST_PHOTOS:,} ids")
    if (wrong := _first_that_is_none(ids)) is not None:
        return Order(task, (), f"assetIds: the one at place {wrong + 1} is no id of an asset")
    return Order(task, tuple(dict.fromkeys(one.lower() for one in ids)))


def photo_id(text: str) -> str | None:
    """Return *text* as Immich writes ids, or None when it is none: nothing else is put into an address or a key."""
    text = text.lower()
    return text if _UUID.fullmatch(text) else None


def _first_that_is_none(ids: list[Any]) -> int | None:
    return next((at for at, one in enumerate(ids) if not isinstance(one, str) or photo_id(one) is None), None)
