"""What each task asks of Triton, and how tensors become Immich's answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from immich_triton.core.errors import ProtocolError
from immich_triton.core.json_text import dump
from immich_triton.ml.protocol import Form, parse_task
from immich_triton.ml.route_file import Route, RouteError
from immich_triton.ml.tasks import TASKS
from immich_triton.triton.client import ServerFault
from immich_triton.triton.pipelines import Pipeline

IMAGE = Form(entries="", image=b"jpeg", text=None)
TEXT = Form(entries="", image=None, text="苹果\ud800")
SIZE = np.array([[1080, 1440]], np.int32)
DETECTION = {"detection": {"modelName": "m"}}
FINGERPRINT = 20_251_127
PROOF = {"FINGERPRINT": np.array([[FINGERPRINT]])}
BOTH = {**DETECTION, "recognition": {"modelName": "m"}}


def route(task: str, name: str = "m", dimension: int = 0) -> Route:
    types = {"clip": [("visual",), ("textual",)]}.get(task, [("detection", "recognition")])
    pipelines = tuple(Pipeline(f"pipeline_{types_[0]}", types_, ("model",), {}, FINGERPRINT) for types_ in types)
    return Route(task, (name,), pipelines, "a" * 64, dimension, untrained=False, source=Path("route.toml"))


def answer(
    task: str, types: dict[str, Any], tensors: Mapping[str, npt.NDArray[Any]], dimension: int = 0
) -> dict[str, Any]:
    """Turn tensors into an answer, through JSON as Immich gets it."""
    fragment = TASKS[task].fragment(route(task, dimension=dimension), parse_task(task, types), tensors)
    result: dict[str, Any] = json.loads(dump(fragment))
    return result


class TestClip:
    VISUAL: dict[str, Any] = {"visual": {"modelName": "m"}}  # noqa: RUF012 - a constant
    TEXTUAL: dict[str, Any] = {"textual": {"modelName": "m", "options": {"language": "en-null"}}}  # noqa: RUF012

    def test_asks_the_pipeline_of_the_type(self) -> None:
        call = TASKS["clip"].call(route("clip"), parse_task("clip", self.VISUAL), IMAGE)
        assert (call.pipeline.name, call.tensor, call.payload) == ("pipeline_visual", "IMAGE", b"jpeg")
        call = TASKS["clip"].call(route("clip"), parse_task("clip", self.TEXTUAL), TEXT)
        # A lone surrogate cannot be sent as UTF-8.
        assert (call.pipeline.name, call.tensor, call.payload) == ("pipeline_textual", "TEXT", "苹果?".encode())

    def test_refuses_an_image_for_the_text_encoder_and_the_reverse(self) -> None:
        with pytest.raises(ProtocolError, match="visual needs an image"):
            TASKS["clip"].call(route("clip"), parse_task("clip", self.VISUAL), TEXT)
        with pytest.raises(ProtocolError, match="textual needs a text"):
            TASKS["clip"].call(route("clip"), parse_task("clip", self.TEXTUAL), IMAGE)

    def test_the_embedding_is_a_string_with_the_shortest_digits(self) -> None:
        vector = np.array([[0.1, -0.2, 3e-8]], np.float32)
        body = answer("clip", self.VISUAL, {"EMBEDDING": vector, "IMAGE_SIZE": SIZE, **PROOF}, 3)
        assert body == {"clip": "[0.1,-0.2,3e-8]", "imageHeight": 1080, "imageWidth": 1440}
        assert answer("clip", self.TEXTUAL, {"EMBEDDING": vector, **PROOF}, 3) == {"clip": "[0.1,-0.2,3e-8]"}

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_number_that_is_not_finite_is_never_an_answer(self, bad: float) -> None:
        with pytest.raises(ServerFault, match="not finite"):
            answer("clip", self.TEXTUAL, {"EMBEDDING": np.array([[1.0, bad]], np.float32), **PROOF}, 2)

    def test_a_wrong_length_is_never_an_answer(self) -> None:
        with pytest.raises(ServerFault, match="3 numbers instead of 512"):
            answer("clip", self.TEXTUAL, {"EMBEDDING": np.ones((1, 3), np.float32), **PROOF}, 512)

    def test_the_size_that_the_name_promises_is_checked(self) -> None:
        TASKS["clip"].check(route("clip", "ViT-B-16__openai", 512))
        with pytest.raises(RouteError, match="Immich expects 512 numbers"):
            TASKS["clip"].check(route("clip", "ViT-B-16__openai", 768))
        with pytest.raises(RouteError, match="Immich does not know it"):
            TASKS["clip"].check(route("clip", "my-own-name", 512))


class TestOcr:
    TENSORS: dict[str, npt.NDArray[Any]] = {  # noqa: RUF012 - a constant
        "BOXES": np.array([[[0.1, 0.2, 0.5, 0.2, 0.5, 0.3, 0.1, 0.3], [0.0, 0.5, 1.0, 0.5, 1.0, 0.6, 0.0, 0.6]]], "f4"),
        "BOX_SCORES": np.array([[0.9, 0.8]], np.float32),
        "TEXTS": np.array([["总计".encode(), b"a\0b"]], np.object_),
        "TEXT_SCORES": np.array([[0.99, 0.95]], np.float32),
        "IMAGE_SIZE": SIZE,
    }

    def test_passes_the_requests_own_thresholds_on(self) -> None:
        types = {
            "detection": {"modelName": "m", "options": {"minScore": 0.25, "maxResolution": 900}},
            "recognition": {"modelName": "m", "options": {"minScore": 0.75}},
        }
        call = TASKS["ocr"].call(route("ocr"), parse_task("ocr", types), IMAGE)
        # Floats travel as strings: a call inside Triton takes none.
        assert call.parameters == {
            "detection_min_score": "0.25",
            "recognition_min_score": "0.75",
            "max_resolution": 900,
            "recognition": True,
        }
        assert TASKS["ocr"].call(route("ocr"), parse_task("ocr", DETECTION), IMAGE).parameters["recognition"] is False

    @pytest.mark.parametrize("value", [1, 736.9, 4000, 1e9, 10**18])
    def test_a_resolution_beyond_every_image_is_no_error(self, value: float) -> None:
        types = {"detection": {"modelName": "m", "options": {"maxResolution": value}}}
        asked = TASKS["ocr"].call(route("ocr"), parse_task("ocr", types), IMAGE).parameters["max_resolution"]
        assert asked == min(int(value), 1 << 20)

    def test_needs_an_image(self) -> None:
        with pytest.raises(ProtocolError, match="Task ocr needs an image"):
            TASKS["ocr"].call(route("ocr"), parse_task("ocr", BOTH), TEXT)

    def test_four_parallel_arrays_in_one_order(self) -> None:
        assert answer("ocr", BOTH, self.TENSORS) == {
            "ocr": {
                "box": [0.1, 0.2, 0.5, 0.2, 0.5, 0.3, 0.1, 0.3, 0.0, 0.5, 1.0, 0.5, 1.0, 0.6, 0.0, 0.6],
                "boxScore": [0.9, 0.8],
                "text": ["总计", "ab"],  # PostgreSQL takes no NUL
                "textScore": [0.99, 0.95],
            },
            "imageHeight": 1080,
            "imageWidth": 1440,
        }

    def test_nothing_found_is_four_empty_arrays(self) -> None:
        empty = {name: tensor[:, :0] for name, tensor in self.TENSORS.items() if name != "IMAGE_SIZE"}
        body = answer("ocr", BOTH, {**empty, "IMAGE_SIZE": SIZE})
        assert body["ocr"] == {"box": [], "boxScore": [], "text": [], "textScore": []}

    def test_detection_alone_gives_boxes_in_pixels(self) -> None:
        body = answer("ocr", DETECTION, self.TENSORS)
        assert body["ocr"]["boxes"][0] == [[144, 216], [720, 216], [720, 324], [144, 324]]
        assert body["ocr"]["scores"] == [0.9, 0.8]
        assert set(body["ocr"]) == {"boxes", "scores"}

    def test_arrays_of_different_lengths_are_never_an_answer(self) -> None:
        with pytest.raises(ServerFault, match="2 boxes, 2 and 1 scores, 2 texts"):
            answer("ocr", BOTH, {**self.TENSORS, "TEXT_SCORES": np.ones((1, 1), np.float32)})


class TestFaces:
    TENSORS: dict[str, npt.NDArray[Any]] = {  # noqa: RUF012 - a constant
        "BOXES": np.array([[[690.0, -89.0, 833.0, 96.0]]], np.float32),
        "SCORES": np.array([[0.9]], np.float32),
        "EMBEDDINGS": np.full((1, 1, 4), 2.5, np.float32),
        "LANDMARKS": np.arange(10, dtype=np.float32).reshape(1, 1, 5, 2),
        "IMAGE_SIZE": SIZE,
    }

    def test_a_list_of_faces(self) -> None:
        assert answer("facial-recognition", BOTH, self.TENSORS, 4) == {
            "facial-recognition": [
                {
                    "boundingBox": {"x1": 690.0, "y1": -89.0, "x2": 833.0, "y2": 96.0},
                    "embedding": "[2.5,2.5,2.5,2.5]",
                    "score": 0.9,
                }
            ],
            "imageHeight": 1080,
            "imageWidth": 1440,
        }

    def test_detection_alone_gives_landmarks(self) -> None:
        body = answer("facial-recognition", DETECTION, self.TENSORS, 4)
        assert body["facial-recognition"] == {
            "boxes": [[690.0, -89.0, 833.0, 96.0]],
            "scores": [0.9],
            "landmarks": [[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]],
        }

    def test_no_face_is_an_empty_list(self) -> None:
        empty = {name: tensor[:, :0] for name, tensor in self.TENSORS.items() if name != "IMAGE_SIZE"}
        assert answer("facial-recognition", BOTH, {**empty, "IMAGE_SIZE": SIZE}, 4)["facial-recognition"] == []

    def test_an_embedding_of_another_size_is_never_an_answer(self) -> None:
        with pytest.raises(ServerFault, match="4 numbers instead of 512"):
            answer("facial-recognition", BOTH, self.TENSORS, 512)


@pytest.mark.parametrize(
    ("task", "type_", "option", "value"),
    [
        (task, type_, "minScore", value)
        for task, type_ in (("facial-recognition", "detection"), ("ocr", "detection"), ("ocr", "recognition"))
        for value in (-0.01, -5, 1.01, 10**18, float("nan"), float("inf"), "0.5", True)
    ]
    + [("ocr", "detection", "maxResolution", value) for value in (0, -736, 0.5, float("nan"), "736")],
)
def test_a_number_that_makes_no_sense_is_refused(task: str, type_: str, option: str, value: object) -> None:
    types: dict[str, dict[str, object]] = {name: {"modelName": "m"} for name in BOTH}
    types[type_]["options"] = {option: value}
    with pytest.raises(ProtocolError, match=f"Option {option} of {task}/{type_} must ") as refused:
        TASKS[task].call(route(task), parse_task(task, types), IMAGE)
    assert refused.value.status == 422


@pytest.mark.parametrize("value", [0, 1, 0.7, None])
def test_every_score_can_be_asked_for(value: float | None) -> None:
    types = {name: {"modelName": "m", "options": {"minScore": value}} for name in BOTH}
    for task, name, default in (("facial-recognition", "min_score", 0.7), ("ocr", "recognition_min_score", 0.9)):
        asked = TASKS[task].call(route(task), parse_task(task, types), IMAGE).parameters[name]
        assert float(asked) == (default if value is None else value)
