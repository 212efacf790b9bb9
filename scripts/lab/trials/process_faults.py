"""Faults of processes: Triton is killed, one process of a model is stopped."""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import Final

from harness.program import eventually
from immich_triton.server import processes
from trials.installation import Installation
from trials.load import Load, Outcome, Verdict, count, describe
from trials.world import World

FROZEN: Final = "ocr_rec"
"""The model one of whose processes is stopped."""


def kill(world: World) -> Verdict:
    """Kill Triton again and again."""
    verdict, first, every = Verdict(), list[float](), list[float]()
    # For a search a person waits, and its models are loaded first.
    search = "clip-text" if "clip-text" in world.kinds else "ocr"
    with world.load() as clients:
        for _ in range(3):
            pid, killed = world.site.triton_pid, time.monotonic()
            os.kill(pid, signal.SIGKILL)
            answers = eventually(lambda: _other_pid(world.site, pid), 60)  # noqa: B023 - it is called here
            answers = answers and eventually(lambda: answered(clients, world, killed + 1, search), 240)  # noqa: B023
            verdict.expect(answers, f"no {search} was answered within 240 s after the kill")
            first.append(_first(clients, world, killed + 1, search) - killed)
            verdict.expect(eventually(world.site.ready, 240), "not every route was ready within 240 s after the kill")
            ready = time.monotonic()
            every.append(ready - killed)
            back = eventually(lambda: all(answered(clients, world, ready, kind) for kind in world.routed), 10)  # noqa: B023
            verdict.expect(back, "not every task was answered within 10 s of all models being ready")
    only(verdict, world, clients.since(), {200, 503})
    verdict.expect(world.stock.clip == 0, f"{world.stock.clip} CLIP requests went upstream")
    verdict.say(f"first {search} after {_listed(first)} s; all models ready after {_listed(every)} s")
    return verdict


def freeze_one(world: World) -> Verdict:
    """Stop one process of a model while requests run, as swapping or a throttled container does."""
    verdict, triton = Verdict(), world.site.triton_pid
    before = _stubs(triton)
    if not before:
        verdict.expect(False, f"no process serves {FROZEN}: export it with immich-triton export ocr, or leave this out")
        return verdict
    with world.load() as clients:
        os.kill(max(before), signal.SIGSTOP)
        stopped = time.monotonic()
        replaced = eventually(lambda: len(_stubs(triton)) == len(before) and not _stubs(triton) & before, 120)
        recovered = time.monotonic()
        back = eventually(lambda: answered(clients, world, recovered, "ocr"), 30)
    photos = [one for one in clients.since() if one.kind == "ocr"]
    if not photos:
        verdict.expect(False, "no photo was sent for OCR: export it with immich-triton export ocr, or leave this out")
        return verdict
    slowest = max(one.seconds for one in photos)
    verdict.expect(replaced, f"the processes of {FROZEN} were not replaced within 120 s")
    verdict.expect(back, f"no OCR was answered within 30 s after {FROZEN} was loaded again")
    verdict.expect(world.site.triton_pid == triton, "Triton was restarted")
    only(verdict, world, clients.since(), {200, 503})
    verdict.say(
        f"all processes of {FROZEN} new after {recovered - stopped:.1f} s; slowest photo {slowest:.1f} s, "
        f"median {statistics.median(one.seconds for one in photos):.1f} s, deadline {world.deadline:g} s"
    )
    return verdict


def only(verdict: Verdict, world: World, outcomes: list[Outcome], allowed: set[int]) -> None:
    """Expect that routed requests ended with an *allowed* status, and those that pass through with 200."""
    routed = [one for one in outcomes if one.kind in world.routed]
    passed = [one for one in outcomes if one.kind == "pass"]
    verdict.expect(bool(routed) and {one.status for one in routed} <= allowed, f"routed: {describe(count(routed))}")
    verdict.expect({one.status for one in passed} == {200}, f"passing: {describe(count(passed))}")
    verdict.say(f"routed {describe(count(routed))}; passing {describe(count(passed))}")


def answered(clients: Load, world: World, since: float, kind: str = "") -> bool:
    """Tell whether a routed request, of *kind* where that is given, was answered after *since*."""
    return _first(clients, world, since, kind) < float("inf")


def _first(clients: Load, world: World, since: float, kind: str) -> float:
    kinds = [kind] if kind else world.routed
    ends = (one.ended for one in clients.since() if one.kind in kinds and one.status == 200 and one.ended > since)
    return min(ends, default=float("inf"))


def _stubs(triton: int) -> set[int]:
    """Return the living processes of the model."""
    return {
        pid
        for pid in processes.tree(triton)
        if processes.parent(pid) == triton and any(f"/{FROZEN}/" in each for each in processes.arguments(pid)[1:2])
    }


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{each:.1f}" for each in seconds)


def _other_pid(site: Installation, pid: int) -> bool:
    try:
        return site.triton_pid != pid
    except (FileNotFoundError, ValueError):
        return False
