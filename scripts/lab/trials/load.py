"""Clients that ask like Immich does: a mix of tasks, one request after the other on each connection."""

from __future__ import annotations

import io
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import requests
from PIL import Image, ImageDraw

from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.ml.routes import RouteTable

TEXTS: Final = (
    "海边的日落",
    "a dog on the beach",
    "生日蛋糕",
    "receipt",
    "雪山",
    "two people laughing",
    "红色的汽车",
    "猫",
)

CUT: Final = "cut off"
REFUSED: Final = "refused"
TIMEOUT: Final = "no answer"


@dataclass(frozen=True)
class Outcome:
    """What became of one request: *status* is a number, or one of the words above. Times are monotonic."""

    kind: str
    status: int | str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@dataclass(frozen=True)
class Kind:
    """A kind of request: a body for ``/predict``, or none for what passes through."""

    name: str
    content_type: str = ""
    body: bytes = b""


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> bytes:
    """Return a small JPEG with some shapes and a line of text, another one for each *seed*."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    image = Image.new("RGB", size, (chance.randrange(200), 120, chance.randrange(256)))
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        x, y = chance.randrange(size[0]), chance.randrange(size[1])
        draw.ellipse((x, y, x + 40, y + 30), fill=(chance.randrange(256), chance.randrange(256), 80))
    draw.text((20, 20), f"SALE {seed} EUR", fill="white", font_size=28)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()


def with_image(kind: Kind, image: bytes) -> Kind:
    """Return the same request as *kind*, one of `kinds`, for another image."""
    return Kind(f"{kind.name} of another image", kind.content_type, kind.body.replace(picture(1), image))


def kinds(table: RouteTable) -> dict[str, Kind]:
    """Return every kind of request that *table* has a route for, and two that pass through or are bad."""
    found = {"pass": Kind("pass")}
    for task, name in (("ocr", "ocr"), ("clip", "clip"), ("clip", "clip-text"), ("facial-recognition", "faces")):
        models = [model for route in table.routes if route.task == task for model in route.names]
        if models:
            payload = {"text": TEXTS[0]} if name == "clip-text" else {"image": picture(1)}
            content_type, body = encode(entries_for(name, models[0]), **payload)
            found[name] = Kind(name, content_type, body)
            if name == "ocr":
                bad_type, bad = encode(entries_for(name, models[0]), image=b"this is no image")
                found["bad"] = Kind("bad", bad_type, bad)
    return found


class Load:
    """Clients at work; ``outcomes`` grows. *on_failure* seconds are waited after anything but an answer."""

    def __init__(self, url: str, cycle: Sequence[Kind], clients: int, *, on_failure: float = 0.2) -> None:
        self.outcomes: list[Outcome] = []
        self._url = url
        self._on_failure = on_failure
        self._stop = threading.Event()
        self._next = itertools.cycle(cycle)
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send nothing new, and wait for the answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join(320)

    def since(self, began: float = 0.0) -> list[Outcome]:
        """Return the outcomes of requests that began after *began*."""
        return [outcome for outcome in list(self.outcomes) if outcome.began >= began]

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop.is_set():
                with self._lock:
                    kind = next(self._next)
                outcome = ask(session, self._url, kind)
                self.outcomes.append(outcome)
                if outcome.status == REFUSED or outcome.status == 503:
                    self._stop.wait(self._on_failure)


@contextmanager
def load(url: str, cycle: Sequence[Kind], clients: int) -> Iterator[Load]:
    """Run a load while the block lasts."""
    one = Load(url, cycle, clients)
    try:
        yield one
    finally:
        one.stop()


def ask(session: requests.Session, url: str, kind: Kind) -> Outcome:
    """Send one request and say what became of it."""
    began = time.monotonic()
    try:
        if kind.name == "pass":
            status: int | str = session.get(f"{url}/anything", timeout=310).status_code
        else:
            headers = {"content-type": kind.content_type}
            status = session.post(f"{url}/predict", data=kind.body, headers=headers, timeout=310).status_code
    except requests.Timeout:
        status = TIMEOUT
    except requests.ConnectionError as error:
        status = REFUSED if "refused" in str(error) else CUT
    return Outcome(kind.name, status, began, time.monotonic())


def count(outcomes: Sequence[Outcome], by: Callable[[Outcome], object] = lambda one: one.status) -> dict[str, int]:
    """Count outcomes, by status unless told otherwise."""
    return {str(key): number for key, number in sorted(Counter(map(by, outcomes)).items(), key=str)}


def describe(counts: Mapping[str, int]) -> str:
    """Return counts on one line."""
    return ", ".join(f"{number} x {status}" for status, number in counts.items()) or "none"


@dataclass
class Verdict:
    """What a trial showed; ``failures`` says what was not as expected."""

    measured: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a figure."""
        self.measured.append(text)

    def expect(self, condition: bool, text: str) -> None:
        """Fail with *text* unless *condition* holds."""
        if not condition:
            self.failures.append(text)
