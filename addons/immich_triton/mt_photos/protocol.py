"""mt-photos-ai's wire format: what a request holds, and how Immich's answers look in its shape. Pure: no I/O.

Read from two generations of public servers (paths /ocr and /ocr/rec); refusals have the form of FastAPI with
Pydantic 2, which both are written with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from immich_triton.core.errors import ProtocolError
from immich_triton.ml.forms import FormError, read_parts
from immich_triton.triton.client import ServerFault

Array = npt.NDArray[Any]
Fragment = Mapping[str, Any]
"""What the tasks of Immich make of Triton's tensors (`ml.tasks`)."""

TITLE: Final = "immich-triton"
"""What ``/check`` says that it is, by which it is told from mt-photos-ai itself."""

LONGEST_SIDE: Final = 10_000
"""Pixels; mt-photos-ai gives an image with a longer side no result."""

TOO_LARGE: Final = "height or width out of range"
"""mt-photos-ai's own words for that."""


def _missing(*place: str) -> list[dict[str, Any]]:
    return [{"type": "missing", "loc": place, "msg": "Field required", "input": None}]


KEY_MISSING: Final = _missing("header", "api-key")
FILE_MISSING: Final = _missing("body", "file")
TEXT_MISSING: Final = _missing("body", "text")


def image_of(content_type: str, body: bytes, *, max_parts: int) -> bytes:
    """Return the file of a form. Raises `ProtocolError` (400, 422) where there is no such form."""
    try:
        parts = read_parts(content_type, body, max_parts=max_parts)
    except FormError as error:
        raise ProtocolError(400, str(error)) from error
    files = [part for part in parts if part.name == "file"]
    if not files:
        raise ProtocolError(422, FILE_MISSING)
    if files[-1].filename is None:
        text = "Value error, Expected UploadFile, received: <class 'str'>"
        raise ProtocolError(422, [{"type": "value_error", "loc": ["body", "file"], "msg": text}])
    return files[-1].value


def text_of(body: bytes) -> str:
    """Return the text of ``{"text": …}``. Raises `ProtocolError` (422) where there is none."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail: dict[str, Any] = {
            "type": "json_invalid",
            "loc": ["body", error.pos],
            "msg": "JSON decode error",
            "input": {},
        }
        raise ProtocolError(422, [detail]) from error
    if not isinstance(given, dict) or "text" not in given:
        raise ProtocolError(422, TEXT_MISSING)
    if not isinstance(text := given["text"], str):
        detail = {"type": "string_type", "loc": ["body", "text"], "msg": "Input should be a valid string"}
        raise ProtocolError(422, [detail])
    return text


def nothing(why: str) -> dict[str, Any]:
    """Return what an image that cannot be used gets, with status 200: the client then leaves it alone."""
    return {"result": [], "msg": why}


def is_too_large(width: int, height: int) -> bool:
    """Whether mt-photos-ai would not look at an image of that size."""
    return max(width, height) > LONGEST_SIDE


def ocr(fragment: Fragment) -> dict[str, Any]:
    """Return lines of text: scores with two decimals, upright boxes around all four corners in pixels."""
    found = fragment["ocr"]
    corners = np.reshape(found["box"], (-1, 4, 2)) * [fragment["imageWidth"], fragment["imageHeight"]]
    boxes = []
    for corner in corners:
        (left, top), (right, bottom) = corner.min(axis=0), corner.max(axis=0)
        sides = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        boxes.append({name: f"{value:.1f}" for name, value in sides.items()})
    scores = [f"{score:.2f}" for score in found["textScore"]]
    return {"result": {"texts": list(found["text"]), "scores": scores, "boxes": boxes}}


def clip(fragment: Fragment) -> dict[str, Any]:
    """Return a vector, of length 1: its numbers as strings with 16 decimals."""
    return {"result": [f"{value:.16f}" for value in orjson.loads(fragment["clip"])]}


def faces(fragment: Fragment, model: str) -> dict[str, Any]:
    """Return faces with their upright boxes in pixels; embeddings of length 1, where Immich's are as computed."""
    found = []
    for face in fragment["facial-recognition"]:
        box = {name: round(value) for name, value in face["boundingBox"].items()}
        area = {"x": box["x1"], "y": box["y1"], "w": box["x2"] - box["x1"], "h": box["y2"] - box["y1"]}
        embedding = normalised(np.array(json.loads(face["embedding"]), np.float64)).tolist()
        found.append({"embedding": embedding, "facial_area": area, "face_confidence": float(face["score"])})
    return {"detector_backend": "insightface", "recognition_model": model, "result": found}


def normalised(vector: Array) -> Array:
    """Return a vector with length 1. Raises `ServerFault` for one without a direction."""
    length = float(np.linalg.norm(vector))
    if not length:
        raise ServerFault("the embedding of a face is zero all over")
    return vector / length
