"""Addon: shows ``/predict`` requests and answers as what they mean.

In mitmweb, mitmproxy and ``mitmdump --flow-detail``. The views are made when somebody looks; nothing is logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, override

import numpy as np
import orjson
from mitmproxy import contentviews
from mitmproxy.contentviews import Contentview, Metadata, SyntaxHighlight
from mitmproxy.http import HTTPFlow, Request, Response

from immich_triton.core import flow_state
from immich_triton.core.counting import count
from immich_triton.core.errors import ProtocolError
from immich_triton.inspect.comparing import vector_of
from immich_triton.ml.notes import answered_by
from immich_triton.ml.protocol import parse_entries, parse_form
from immich_triton.proxy.targets import fold_path
from immich_triton.triton.picture import picture_of

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

PRIORITY = 2.0
"""More than mitmproxy's own views of multipart forms and JSON claim (1)."""

FIRST_VALUES = 5


class ContentViews:
    """Registers the views; mitmproxy keeps one view of a name, so a reload replaces them."""

    def load(self, _loader: Loader) -> None:
        """Add both views."""
        contentviews.add(RequestView())
        contentviews.add(AnswerView())


class RequestView(Contentview):
    """What is asked: tasks, types, models and options; the image's format and size, or the query text."""

    name = "Immich request"
    syntax_highlight: SyntaxHighlight = "yaml"

    @override
    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        """Claim the bodies of ``POST /predict``."""
        message = metadata.http_message
        return PRIORITY if isinstance(message, Request) and is_prediction(message) else -1

    @override
    def prettify(self, data: bytes, metadata: Metadata) -> str:
        """Return the request as a few lines of YAML."""
        message = metadata.http_message
        if message is None:
            raise ValueError("not an HTTP message")
        try:
            return "\n".join(request_lines(message.headers.get("content-type", ""), data, metadata.flow))
        except ProtocolError as error:
            return f"not a valid request: {_quoted(error.detail)}\nanswer: {error.status}"


class AnswerView(Contentview):
    """What was answered: vectors, text lines, faces, or the error."""

    name = "Immich answer"
    syntax_highlight: SyntaxHighlight = "yaml"

    @override
    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        """Claim the answers to ``POST /predict``."""
        flow = metadata.flow
        if not data or not isinstance(metadata.http_message, Response) or not isinstance(flow, HTTPFlow):
            return -1
        return PRIORITY if is_prediction(flow.request) else -1

    @override
    def prettify(self, data: bytes, metadata: Metadata) -> str:
        """Return the answer as YAML-like lines, one for each text line or face."""
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            return data.decode("utf-8", "replace")
        lines = list(answer_lines(body))
        comparison = flow_state.COMPARISON.get(metadata.flow) if isinstance(metadata.flow, HTTPFlow) else ""
        return "\n".join([*lines, "", comparison] if comparison else lines)


def is_prediction(request: Request) -> bool:
    """Whether a request is ``POST /predict``, however the path is spelt."""
    return request.method == "POST" and fold_path(request.path) == "/predict"


def request_lines(content_type: str, body: bytes, flow: object = None) -> Iterator[str]:
    """Yield what a request asks. Raises `ProtocolError` when it is none."""
    form = parse_form(content_type, body)
    for task, types in parse_entries(form.entries).items():
        yield f"{task}:"
        yield from _type_lines(types)
    if form.image is not None:
        picture = picture_of(form.image)
        size = f"{picture.width} x {picture.height} pixels, " if picture.width else ""
        yield f"image: {picture.format}, {size}{len(form.image):,} bytes"
    if form.text is not None:
        yield f"text: {_quoted(form.text)}"
        if form.image is not None:
            yield "note: with an image the text is ignored"
    if isinstance(flow, HTTPFlow) and (who := answered_by(flow)):
        # Until there is an answer, and when it is an error, nobody has answered.
        answered = flow.response is not None and flow.response.status_code < 400
        yield f"{'answered by' if answered else 'meant for'}: {who}"


def _type_lines(types: object) -> Iterator[str]:
    if not isinstance(types, dict):
        yield f"  {_quoted(types)}"
        return
    for type_, model in types.items():
        if isinstance(model, dict) and isinstance(model.get("modelName"), str):
            options = model.get("options")
            named = [f"{key} {_quoted(value)}" for key, value in options.items()] if isinstance(options, dict) else []
            yield f"  {type_}: {model['modelName']}" + (f" ({', '.join(named)})" if named else "")
        else:
            yield f"  {type_}: {_quoted(model)}"


def answer_lines(body: object) -> Iterator[str]:
    """Yield what an answer says: any JSON; what is not Immich's is shown as it is."""
    if not isinstance(body, dict):
        yield _quoted(body)
        return
    if "imageWidth" in body and "imageHeight" in body:
        yield f"image: {body['imageWidth']} x {body['imageHeight']} pixels"
    for key, value in body.items():
        if key in ("imageWidth", "imageHeight"):
            continue
        try:
            lines = list(_part_lines(key, value, body))
        except (KeyError, TypeError, ValueError, IndexError):
            lines = [f"{key}: {_quoted(value)}"]  # not in the form that Immich expects: show it as it is
        yield from lines


def _part_lines(key: str, value: Any, body: Mapping[str, Any]) -> Iterator[str]:
    if key == "detail":
        yield f"error: {value if isinstance(value, str) else _quoted(value)}"
    elif key == "clip":
        size, values = embedding_summary(value)
        yield f"clip: {size}"
        yield f"  {values}"
    elif key == "ocr" and "text" in value:
        yield from _ocr_lines(value, body)
    elif key == "facial-recognition" and isinstance(value, list):
        yield f"facial-recognition: {count(len(value), 'face')}"
        for index, face in enumerate(value, 1):
            box = face["boundingBox"]
            corners = f"{box['x1']:.0f},{box['y1']:.0f} {box['x2']:.0f},{box['y2']:.0f}"
            size, values = embedding_summary(face["embedding"])
            yield f"  {index}: score {face['score']:.3f}, box {corners}"
            yield f"     {size}: {values}"
    elif key in ("ocr", "facial-recognition"):
        yield f"{key}: {count(len(value['boxes']), 'box', 'boxes')}, detection only"
        for index, (box, score) in enumerate(zip(value["boxes"], value["scores"], strict=True), 1):
            corners = " ".join(f"{x:.0f},{y:.0f}" for x, y in np.asarray(box, dtype=float).reshape(-1, 2))
            yield f"  {index}: score {score:.3f}, box {corners}"
    else:
        yield f"{key}: {_quoted(value)}"


def _ocr_lines(ocr: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[str]:
    """Yield each text with its scores, and the corners of its bounding rectangle in pixels."""
    boxes = np.asarray(ocr["box"], dtype=float).reshape(-1, 4, 2) * [body["imageWidth"], body["imageHeight"]]
    yield f"ocr: {count(len(ocr['text']), 'line')}"
    for index, (text, score, box, box_score) in enumerate(
        zip(ocr["text"], ocr["textScore"], boxes, ocr["boxScore"], strict=True), 1
    ):
        (x1, y1), (x2, y2) = box.min(axis=0), box.max(axis=0)
        corners = f"{x1:.0f},{y1:.0f} {x2:.0f},{y2:.0f}"
        yield f"  {index}: {_quoted(text)}"
        yield f"     score {score:.3f}, box {corners}, box score {box_score:.3f}"


def embedding_summary(text: str) -> tuple[str, str]:
    """Return size with Euclidean norm, and the first values. Raises ValueError or TypeError when it is no embedding."""
    vector = vector_of(text)
    values = ", ".join(f"{value:.4f}" for value in vector[:FIRST_VALUES])
    return f"{vector.size} numbers, norm {np.linalg.norm(vector):.4f}", f"{values}, …"


def _quoted(value: object) -> str:
    """Return any value as JSON on one line, so that a text cannot pose as structure."""
    return json.dumps(value, ensure_ascii=False)
