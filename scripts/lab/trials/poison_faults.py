"""Images that cost too much: refused, each on its own account, and hardly noticed beside ordinary photos."""

from __future__ import annotations

import statistics
from typing import Final

import poison as made

from trials.load import Outcome, Verdict, count, describe, load, with_image
from trials.world import World

PHOTOS: Final = 40
SLOWER: Final = 3.0
"""How much slower the slowest twentieth of the photos may be beside such an image."""
RELOADS: Final = 2
"""How often a model may be loaded again in all."""
SLOW: Final = "jpeg-slow"
"""The one that every bound lets pass: it is decoded, and takes seconds."""


def poison(world: World) -> Verdict:
    """Send images that used to stop a pipeline, beside photos of the same task."""
    verdict = Verdict()
    before = reloads(world)
    samples = {**made.samples(), SLOW: made.jpeg_scans(2500, 90)}
    photos: list[Outcome] = []
    refused: list[Outcome] = []
    for task in [name for name in ("ocr", "clip", "faces") if name in world.kinds]:
        alone = [world.one(task) for _ in range(PHOTOS)]
        photos += alone
        slowest = {}
        for name, data in samples.items():
            with load(world.site.url, [with_image(world.kinds[task], data)], 1) as attacker:
                beside = [world.one(task) for _ in range(PHOTOS)]
            photos += beside
            slowest[name] = p95(beside)
            refused += attacker.since() if name != SLOW else []
        worst = max(slowest, key=lambda name: slowest[name])
        ratio = slowest[worst] / p95(alone)
        verdict.say(
            f"{task}: p95 {1000 * p95(alone):.0f} ms alone, at most {1000 * slowest[worst]:.0f} ms ({ratio:.1f}x) "
            f"beside {worst}; " + ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in slowest.items())
        )
        verdict.expect(ratio <= SLOWER, f"{task}: {ratio:.1f} times slower beside {worst}")
    verdict.expect({one.status for one in photos} == {200}, f"photos: {describe(count(photos))}")
    verdict.expect({one.status for one in refused} == {400}, f"poison: {describe(count(refused))}")
    verdict.say(f"photos {describe(count(photos))}; poison {describe(count(refused))}")
    verdict.expect(reloads(world) - before <= RELOADS, f"{reloads(world) - before} models were loaded again")
    verdict.say(f"{reloads(world) - before} models loaded again")
    return verdict


def reloads(world: World) -> int:
    """Return how often the supervisor has loaded a model again so far."""
    return world.site.log.count("loading the model again")


def p95(outcomes: list[Outcome]) -> float:
    """Return the 95th percentile of what they took, in seconds."""
    return statistics.quantiles((one.seconds for one in outcomes), n=20)[-1]
