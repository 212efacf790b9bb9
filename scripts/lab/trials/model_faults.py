"""Faults of one model: it is away, cannot be loaded, or answers garbage. The other tasks must not notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from harness.program import eventually
from trials.load import Load, Outcome, Verdict, count, describe
from trials.world import World


def unload(world: World) -> Verdict:
    """Take one model away and bring it back."""
    return _without_ocr(world, lambda: True)


def broken(world: World) -> Verdict:
    """Let one model be no model, so that it cannot be loaded, and repair it."""

    def spoil() -> bool:
        world.repository.replace("ocr_rec/1/model.onnx", b"no network")
        return not world.loads("ocr_rec")

    return _without_ocr(world, spoil)


def _without_ocr(world: World, spoil: Callable[[], bool]) -> Verdict:
    verdict = Verdict()
    with world.load() as clients:
        world.control("ocr_rec", "unload")
        verdict.expect(spoil(), "the broken model could be loaded")
        during = _outcomes(world, clients, "ocr", 5 * world.pace)
        world.repository.restore("ocr_rec/1/model.onnx")
        world.control("ocr_rec", "load")
        loaded = time.monotonic()
        back = eventually(lambda: any(one.kind == "ocr" and one.status == 200 for one in clients.since(loaded)), 30)
    _only_one_suffers(verdict, world, during, "ocr", {503})
    verdict.expect(back, "no answer within 30 s after the model was loaded again")
    return verdict


def garbage(world: World) -> Verdict:
    """Let a pipeline answer NaN, too few numbers, no embedding at all, and an error, in turns."""
    verdict, file = Verdict(), "clip_image/1/model.py"
    with world.load() as clients:
        world.repository.replace(file, GARBAGE.replace("DIMENSION", str(world.repository.clip_dimension)).encode())
        # The supervisor has it loaded.
        served = eventually(lambda: any(one.kind == "clip" and one.status == 500 for one in clients.since()), 60)
        during = _outcomes(world, clients, "clip", 20 * world.pace)
        world.repository.restore(file)
        restored = time.monotonic()
        back = eventually(lambda: any(one.kind == "clip" and one.status == 200 for one in clients.since(restored)), 60)
    verdict.expect(served, "the garbage was never answered")
    _only_one_suffers(verdict, world, during, "clip", {500, 503})
    verdict.expect(world.stock.clip == 0, f"{world.stock.clip} CLIP requests went upstream")
    verdict.expect(back, "no answer within 60 s after the pipeline was restored")
    return verdict


GARBAGE: Final = """
import itertools

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self._turns = itertools.count()

    def execute(self, requests):
        return [self._answer(next(self._turns) % 4) for _ in requests]

    def _answer(self, turn):
        size = pb_utils.Tensor("IMAGE_SIZE", np.array([[240, 320]], np.int32))
        vector = np.full((1, DIMENSION), DIMENSION**-0.5, np.float32)
        if turn == 0:
            vector[0, 7] = np.nan
        elif turn == 1:
            vector = vector[:, :-1]
        elif turn == 2:
            return pb_utils.InferenceResponse([size])
        else:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("made to fail"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("EMBEDDING", vector), size])
"""


def _outcomes(world: World, clients: Load, task: str, seconds: float) -> list[Outcome]:
    """Return what becomes of requests that begin from now on, *seconds* long and until some of *task* have ended."""
    began = time.monotonic()
    time.sleep(seconds)
    eventually(lambda: sum(one.kind == task for one in clients.since(began)) >= AT_LEAST, world.deadline + 60)
    return clients.since(began)


AT_LEAST: Final = 4
"""Requests of the task that suffers, before a trial is judged."""


def _only_one_suffers(verdict: Verdict, world: World, outcomes: list[Outcome], task: str, allowed: set[int]) -> None:
    ours = [one for one in outcomes if one.kind == task]
    others = [one for one in outcomes if one.kind in world.routed and one.kind != task]
    verdict.expect(bool(ours) and {one.status for one in ours} <= allowed, f"{task}: {describe(count(ours))}")
    verdict.expect({one.status for one in others} == {200}, f"others: {describe(count(others))}")
    verdict.say(f"meanwhile {task} {describe(count(ours))}; others {describe(count(others))}")
