"""What is written down about a prediction, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from mitmproxy.test import tflow

from immich_triton.core import flow_state
from immich_triton.ml.notes import note_split
from immich_triton.ml.protocol import Entry, parse_task
from immich_triton.ml.route_file import Route
from immich_triton.triton.pipelines import Pipeline

OCR = Route("ocr", ("m",), (Pipeline("ocr", ("detection", "recognition"), ("ocr_det", "ocr_rec")),), "a" * 64)
CLIP = Route(
    "clip",
    ("m",),
    (Pipeline("clip_image", ("visual",), ("cn_visual",)), Pipeline("clip_text", ("textual",), ())),
    "a" * 64,
)


def entries(task: str, *types: str, name: str = "M.1") -> list[Entry]:
    return parse_task(task, {type_: {"modelName": name} for type_ in types})


def note(*ours: tuple[Route, list[Entry]], others: Mapping[str, Any] | None = None) -> str:
    flow = tflow.tflow()
    note_split(flow, ours, others or {})
    return flow_state.ROUTES.get(flow)


def test_who_answers_what() -> None:
    assert note((OCR, entries("ocr", "detection", "recognition"))) == "ocr M.1 → ocr"
    assert note((OCR, entries("ocr", "detection"))) == "ocr/detection M.1 → ocr"


def test_of_clip_the_encoder_is_named_where_it_is_known() -> None:
    assert note((CLIP, entries("clip", "visual"))) == "clip/visual M.1 → cn_visual"
    assert note((CLIP, entries("clip", "textual"))) == "clip/textual M.1 → clip_text"
    assert note((CLIP, entries("clip", "visual", "textual"))) == "clip M.1 → cn_visual + clip_text"


def test_what_passes_through_beside_it() -> None:
    others = {"clip": {"visual": {"modelName": "ViT-B-32__openai"}}}
    ours = (OCR, entries("ocr", "detection", "recognition"))
    assert note(ours, others=others) == "ocr M.1 → ocr, clip/visual ViT-B-32__openai passed through"


@pytest.mark.parametrize(
    ("task", "asked", "said"),
    [
        ("pets", {"detection": {"modelName": "cats"}}, "pets cats passed through"),
        ("ocr", {"detection": {"modelName": "a"}, "recognition": {"modelName": "b"}}, "ocr a + b passed through"),
        ("ocr", {"detection": {"modelName": "a"}, "recognition": {"modelName": "a"}}, "ocr a passed through"),
        ("pets", None, "pets passed through"),
        ("pets", ["modelName"], "pets passed through"),
        ("pets", {"x": {"modelName": 7}, "y": {}, "z": 3}, "pets passed through"),
    ],
)
def test_the_shape_of_what_is_not_ours_is_not_checked(task: str, asked: object, said: str) -> None:
    assert note(others={task: asked}) == said
