"""One small class per task: what is asked of Triton, and how its tensors become Immich's answer. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, override

import numpy as np
import numpy.typing as npt

from immich_triton.core.errors import ProtocolError
from immich_triton.core.json_text import dump
from immich_triton.immich.clip_names import dimension_of
from immich_triton.ml import fingerprints
from immich_triton.ml.protocol import Entry, Form
from immich_triton.ml.route_file import Route, RouteError
from immich_triton.triton import weights
from immich_triton.triton.client import Call, ServerFault

Array = npt.NDArray[Any]
Fragment = dict[str, Any]


LARGEST_SIDE: Final = 1 << 20
"""Pixels; more than any image that is accepted has."""


class Task:
    """A task of Immich: checks its routes, makes the call, reads the answer."""

    name: ClassVar[str]
    bounds: ClassVar[Sequence[str]] = ("max_pixels",)
    """The gateway's settings that travel with an image, as request parameters of the same name."""

    def check(self, route: Route) -> None:
        """Raise `RouteError` when the route cannot answer for its names."""

    def call(self, route: Route, entries: Sequence[Entry], form: Form) -> Call:
        """Return what to ask of Triton. Raises `ProtocolError` when the request makes no sense."""
        raise NotImplementedError

    def fragment(self, route: Route, entries: Sequence[Entry], tensors: Mapping[str, Array]) -> Fragment:
        """Return this task's part of Immich's answer. Raises `ServerFault` when the tensors are not as promised."""
        raise NotImplementedError


class Clip(Task):
    """Image and text embeddings; strings that hold a JSON array, because Immich pastes them into SQL."""

    name = "clip"

    @override
    def check(self, route: Route) -> None:
        """Refuse a name whose vector size in Immich's database is another one."""
        for name in route.names:
            expected = dimension_of(name)
            if expected != route.dimension:
                known = f"expects {expected} numbers" if expected else "does not know it"
                raise RouteError(f"{route.source}: answers {name} with {route.dimension} numbers, but Immich {known}")

    @override
    def call(self, route: Route, entries: Sequence[Entry], form: Form) -> Call:
        """Ask the image or the text pipeline, whichever type was asked for, and for the proof of its weights.

        Raises `WrongWeights` when the route does not say which ones it stands for.
        """
        if len(entries) != 1:
            raise ProtocolError(422, "Invalid request format.")
        pipeline = route.pipeline(entries[0].type)
        if entries[0].type == "visual":
            if form.image is None:
                raise ProtocolError(400, "Task clip of type visual needs an image")
            fingerprints.require(route, pipeline)
            return Call(pipeline, "IMAGE", form.image, ("EMBEDDING", "IMAGE_SIZE", weights.OUTPUT))
        if form.image is not None or form.text is None:
            raise ProtocolError(400, "Task clip of type textual needs a text and no image")
        fingerprints.require(route, pipeline)
        return Call(pipeline, "TEXT", form.text.encode("utf-8", "replace"), ("EMBEDDING", weights.OUTPUT))

    @override
    def fragment(self, route: Route, entries: Sequence[Entry], tensors: Mapping[str, Array]) -> Fragment:
        """Give the embedding, and the size of an image. Raises `WrongWeights` when it is not of the route's model."""
        fingerprints.compare(route, route.pipeline(entries[0].type), tensors)
        size = image_size(tensors) if entries[0].type == "visual" else {}
        return {"clip": embedding(tensors["EMBEDDING"].reshape(-1), route.dimension), **size}


class Ocr(Task):
    """Text lines with boxes, in reading order."""

    name = "ocr"

    @override
    def call(self, route: Route, entries: Sequence[Entry], form: Form) -> Call:
        """Ask the `ocr` pipeline with the request's own thresholds; stock's defaults where it has none."""
        options = {entry.type: entry for entry in entries}
        parameters: dict[str, str | int | bool] = {
            "detection_min_score": str(min_score(options["detection"], 0.5)),
            "max_resolution": max_resolution(options["detection"]),
            "recognition": "recognition" in options,
        }
        if "recognition" in options:
            parameters["recognition_min_score"] = str(min_score(options["recognition"], 0.9))
        outputs = ("BOXES", "BOX_SCORES", "TEXTS", "TEXT_SCORES", "IMAGE_SIZE")
        return Call(route.pipeline("detection"), "IMAGE", require_image(self, form), outputs, parameters)

    @override
    def fragment(self, route: Route, entries: Sequence[Entry], tensors: Mapping[str, Array]) -> Fragment:
        """Give the four parallel arrays; for detection alone the boxes in pixels."""
        size = image_size(tensors)
        boxes = finite("BOXES", tensors["BOXES"].reshape(-1, 8))
        scores = finite("BOX_SCORES", tensors["BOX_SCORES"].reshape(-1))
        if {entry.type for entry in entries} == {"detection"}:
            pixels = boxes.reshape(-1, 4, 2) * [size["imageWidth"], size["imageHeight"]]
            return {"ocr": {"boxes": np.rint(pixels).astype(np.float32), "scores": scores}, **size}
        texts = [_text(value) for value in tensors["TEXTS"].reshape(-1)]
        text_scores = finite("TEXT_SCORES", tensors["TEXT_SCORES"].reshape(-1))
        if not len(boxes) == len(scores) == len(texts) == len(text_scores):
            raise ServerFault(
                f"ocr answered {len(boxes)} boxes, {len(scores)} and {len(text_scores)} scores, {len(texts)} texts"
            )
        answer = {"box": boxes.reshape(-1), "boxScore": scores, "text": texts, "textScore": text_scores}
        return {"ocr": answer, **size}


class Faces(Task):
    """Faces with boxes, scores and raw 512-d embeddings, best first."""

    name = "facial-recognition"
    bounds = ("max_pixels", "max_faces")

    @override
    def call(self, route: Route, entries: Sequence[Entry], form: Form) -> Call:
        """Ask the `faces` pipeline with the request's own threshold; stock's default where it has none."""
        options = {entry.type: entry for entry in entries}
        parameters: dict[str, str | int | bool] = {
            "min_score": str(min_score(options["detection"], 0.7)),
            "recognition": "recognition" in options,
        }
        outputs = ("BOXES", "SCORES", "EMBEDDINGS", "LANDMARKS", "IMAGE_SIZE")
        return Call(route.pipeline("detection"), "IMAGE", require_image(self, form), outputs, parameters)

    @override
    def fragment(self, route: Route, entries: Sequence[Entry], tensors: Mapping[str, Array]) -> Fragment:
        """Give a list of faces; for detection alone boxes, scores and landmarks."""
        size = image_size(tensors)
        boxes = finite("BOXES", tensors["BOXES"].reshape(-1, 4))
        scores = finite("SCORES", tensors["SCORES"].reshape(-1))
        if {entry.type for entry in entries} == {"detection"}:
            landmarks = finite("LANDMARKS", tensors["LANDMARKS"].reshape(-1, 5, 2))
            return {self.name: {"boxes": boxes, "scores": scores, "landmarks": landmarks}, **size}
        embeddings = tensors["EMBEDDINGS"].reshape(-1, tensors["EMBEDDINGS"].shape[-1])
        if not len(boxes) == len(scores) == len(embeddings):
            raise ServerFault(f"faces answered {len(boxes)} boxes, {len(scores)} scores, {len(embeddings)} embeddings")
        faces = [
            {
                "boundingBox": dict(zip(("x1", "y1", "x2", "y2"), box.astype(float).tolist(), strict=True)),
                "embedding": embedding(vector, route.dimension),
                "score": score,
            }
            for box, score, vector in zip(boxes, scores, embeddings, strict=True)
        ]
        return {self.name: faces, **size}


TASKS: Final[Mapping[str, Task]] = {task.name: task for task in (Clip(), Ocr(), Faces())}


def require_image(task: Task, form: Form) -> bytes:
    """Return the image. Raises `ProtocolError` (400) when the request has a text instead."""
    if form.image is None:
        raise ProtocolError(400, f"Task {task.name} needs an image")
    return form.image


def min_score(entry: Entry, default: float) -> float:
    """Return the lowest score that is wanted. Raises `ProtocolError` (422) when it is none: scores are 0 to 1."""
    value = entry.number("minScore", default)
    if not 0 <= value <= 1:
        text = f"Option minScore of {entry.task}/{entry.type} must lie between 0 and 1, got {value!r}."
        raise ProtocolError(422, text)
    return value


def max_resolution(entry: Entry) -> int:
    """Return the shorter side in detection, in pixels; a larger value than any image has means the same as that.

    Raises `ProtocolError` (422) when no image could be so small.
    """
    value = entry.number("maxResolution", 736)
    if not value >= 1:
        raise ProtocolError(
            422, f"Option maxResolution of {entry.task}/{entry.type} must be at least 1, got {value!r}."
        )
    return int(min(value, LARGEST_SIDE))


def image_size(tensors: Mapping[str, Array]) -> dict[str, int]:
    """Read IMAGE_SIZE [1,2] = height, width."""
    height, width = (int(value) for value in tensors["IMAGE_SIZE"].reshape(2))
    return {"imageHeight": height, "imageWidth": width}


def embedding(vector: Array, dimension: int) -> str:
    """Return a vector as a JSON array in a string, each float32 with its shortest digits.

    Raises `ServerFault` when a number is not finite or the length is not *dimension*: neither may reach the index.
    """
    if vector.shape != (dimension,):
        raise ServerFault(f"the embedding has {vector.size} numbers instead of {dimension}")
    return dump(finite("the embedding", vector)).decode()


def finite(name: str, array: Array) -> Array:
    """Return *array* as contiguous float32. Raises `ServerFault` when a number in it is not finite."""
    if not np.isfinite(array).all():
        raise ServerFault(f"{name} holds numbers that are not finite")
    return np.ascontiguousarray(array, dtype=np.float32)


def _text(value: bytes | str) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    # PostgreSQL takes no NUL in a text.
    return text.replace("\0", "")
