"""A CLIP answer is believed only with the fingerprint of the route's weights; in a gateway: test_weights.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immich_triton.ml import fingerprints
from immich_triton.ml.fingerprints import Doubts
from immich_triton.ml.route_file import Route
from immich_triton.triton.inference import Call, WrongWeights
from immich_triton.triton.pipelines import Pipeline

VISUAL = Pipeline("clip_image", ("visual",), ("see",), {"encoder": "see"}, fingerprint=7)
TEXTUAL = Pipeline("clip_text", ("textual",), ("read",), {"encoder": "read"}, fingerprint=8)
ROUTE = Route("clip", ("ViT-B-16__openai",), (VISUAL, TEXTUAL), "a1" * 32, 512, False, Path("/models/see/route.toml"))
UNKNOWN = replace(VISUAL, fingerprint=None)


@pytest.mark.parametrize("answered", [[[8]], [[7, 7]], [[]], [["7"]], [[7.5]], [[float("nan")]]])
def test_only_the_very_fingerprint_is_believed(answered: list[list[object]]) -> None:
    fingerprints.compare(ROUTE, VISUAL, {"FINGERPRINT": np.array([[7]])})
    with pytest.raises(WrongWeights, match=r"answers with other weights .* copy see/route.toml from its repository"):
        fingerprints.compare(ROUTE, VISUAL, {"FINGERPRINT": np.array(answered)})


def test_a_route_without_a_fingerprint_answers_nothing() -> None:
    route = replace(ROUTE, pipelines=(UNKNOWN, TEXTUAL))
    with pytest.raises(WrongWeights, match=r"copy see/route.toml from there to /models/see/route.toml"):
        fingerprints.require(route, UNKNOWN)
    with pytest.raises(WrongWeights):
        fingerprints.compare(route, UNKNOWN, {"FINGERPRINT": np.array([[7]])})


async def test_a_doubt_stays_until_the_pipeline_answers_right_or_its_route_changes() -> None:
    doubts, asked = Doubts(), []
    answer: dict[str, Any] = {}

    async def ask(call: Call) -> dict[str, Any]:
        asked.append((call.pipeline.name, call.tensor, call.outputs))
        return answer

    doubts.add(VISUAL, WrongWeights("why"))
    assert doubts.about([ROUTE]) == {"clip_image": "why"}
    await doubts.ask_again([ROUTE], ask)  # no answer
    assert doubts.about([ROUTE]) == {"clip_image": "why"}
    answer["FINGERPRINT"] = np.array([[8]])
    await doubts.ask_again([ROUTE], ask)
    assert "other weights" in doubts.about([ROUTE])["clip_image"]
    answer["FINGERPRINT"] = np.array([[7]])
    await doubts.ask_again([ROUTE], ask)
    assert doubts.about([ROUTE]) == {}
    assert asked == [("clip_image", "IMAGE", ("FINGERPRINT",))] * 3
    doubts.add(TEXTUAL, WrongWeights("why"))
    await doubts.ask_again([replace(ROUTE, pipelines=(VISUAL, replace(TEXTUAL, fingerprint=9)))], ask)
    assert len(asked) == 3
    assert doubts.about([ROUTE]) == {}  # forgotten
    assert doubts.about([replace(ROUTE, pipelines=(UNKNOWN, TEXTUAL))]).keys() == {"clip_image"}


def test_only_clip_is_doubted() -> None:
    ocr = Pipeline("ocr", ("detection", "recognition"), ("ocr_det", "ocr_rec"))
    route = Route("ocr", ("PP-OCRv5_mobile",), (ocr,), "a1" * 32)
    doubts = Doubts()
    doubts.add(ocr, WrongWeights("why"))
    assert doubts.about([route]) == {}, "its texts do not mix with anything"


def test_a_right_answer_settles_it() -> None:
    doubts = Doubts()
    for pipeline in (VISUAL, TEXTUAL):
        doubts.add(pipeline, WrongWeights("why"))
    doubts.settle(VISUAL)
    assert doubts.about([ROUTE]) == {"clip_text": "why"}
    doubts.settle(VISUAL)  # again, which is no error
