"""Screenshots of whole pages among ordinary photos: each is the work of fifty of these, and all must be answered."""

from __future__ import annotations

import io
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from PIL import Image, ImageDraw

from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.ml.routes import load_routes
from immich_triton.ml.settings import Settings
from trials.load import Kind, Outcome, Verdict, count, describe, picture
from trials.world import CLIENTS, World

DEADLINE: Final = Settings.deadline
"""Seconds: what the gateway allows unless it is told otherwise. Four of them take longer than trials of faults wait."""

SCREENSHOT: Final = (1080, 53_000)
SCREENSHOTS: Final = 4
PHOTO: Final = (1440, 1080)
ALONE_SECONDS: Final = 15.0


def long_screenshots(world: World) -> Verdict:
    """Send four screenshots of 1080 x 53,000 pixels at once, beside eight clients with ordinary photos."""
    verdict = Verdict()
    if "ocr" not in world.kinds:
        verdict.expect(
            False, "no route answers OCR: export its models with immich-triton export ocr, or leave this out"
        )
        return verdict
    photo = _ocr(world, "photo", picture(1, PHOTO))
    screenshot = _ocr(world, "screenshot", screenshot_of_a_page())
    world.one_of(photo)  # the first one after a start is slow
    with _photos(world, photo) as alone:
        time.sleep(ALONE_SECONDS * world.pace)
    with _photos(world, photo) as beside, ThreadPoolExecutor(SCREENSHOTS) as pool:
        found = list(pool.map(world.one_of, [screenshot] * SCREENSHOTS))
    verdict.expect({one.status for one in found} == {200}, f"screenshots: {describe(count(found))}")
    verdict.expect({one.status for one in beside} == {200}, f"photos beside them: {describe(count(beside))}")
    verdict.say(f"photos alone: {_times(alone)}")
    verdict.say(f"beside {SCREENSHOTS} screenshots: {_times(beside)}")
    verdict.say(f"screenshots after {', '.join(f'{seconds:.0f}' for seconds in sorted(map(_seconds, found)))} s")
    return verdict


@contextmanager
def _photos(world: World, photo: Kind) -> Iterator[list[Outcome]]:
    """Let eight clients send photos while the block lasts, each resting as long as its last answer took."""
    outcomes: list[Outcome] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            outcomes.append(world.one_of(photo))
            stop.wait(outcomes[-1].seconds)

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(send) for _ in range(CLIENTS)]
        try:
            yield outcomes
        finally:
            stop.set()
    for client in clients:
        client.result()


def screenshot_of_a_page(size: tuple[int, int] = SCREENSHOT) -> bytes:
    """Return a JPEG of that size (width, height), with a line of text every 200 pixels."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for number, top in enumerate(range(40, size[1] - 60, 200)):
        draw.text((60, top), f"Message {number}: the parcel arrives at {number % 24}:00", fill="black", font_size=36)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()


def _ocr(world: World, name: str, image: bytes) -> Kind:
    routes = load_routes(world.repository.folder).routes
    model = next(model for route in routes if route.task == "ocr" for model in route.names)
    return Kind(name, *encode(entries_for("ocr", model), image=image))


def _seconds(outcome: Outcome) -> float:
    return outcome.seconds


def _times(outcomes: Sequence[Outcome]) -> str:
    seconds = sorted(map(_seconds, outcomes))
    p95 = seconds[min(len(seconds) - 1, round(0.95 * len(seconds)))]
    return f"{len(seconds)}, median {statistics.median(seconds):.1f} s, p95 {p95:.1f} s, slowest {seconds[-1]:.1f} s"
