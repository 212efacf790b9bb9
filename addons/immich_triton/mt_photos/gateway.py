"""Addon: answers OCR, CLIP and faces from Triton as mt-photos-ai does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, override

from immich_triton.ml import dispatch
from immich_triton.ml import gateway as machine_learning
from immich_triton.ml.notes import note_split
from immich_triton.ml.protocol import Entry, Form
from immich_triton.mt_photos import protocol
from immich_triton.mt_photos.claim import PREDICTIONS, path_of
from immich_triton.proxy.answers import json_response
from immich_triton.triton.inference import BadInput
from immich_triton.triton.picture import picture_of

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Request, Response

    from immich_triton.core.observer import Reason
    from immich_triton.ml.gateway import Story
    from immich_triton.mt_photos.service import Service
    from immich_triton.mt_photos.settings import Settings

OWNED: Final = "mt-photos"
"""The name in the ledger under which the weights of MT-Photos' index are known; no model of Immich is called so."""

TASKS: Final = {"ocr": "ocr", "visual": "clip", "textual": "clip", "faces": "facial-recognition"}

LIMITED: Final = ("ocr", "faces")
"""What is not asked of an image with a long side; mt-photos-ai gives it a vector all the same."""


class Gateway(machine_learning.Gateway):
    """Takes the way of Immich's requests: the same deadline, queue, breaker, proof of weights, ledger and counters.

    A picture that cannot be read is answered with status 200 and no result, as mt-photos-ai does. A fault of the
    server never is: the client would take the picture for one without text or faces.
    """

    _service: Service

    @override
    async def answer(self, flow: HTTPFlow, story: Story) -> Response:
        """Return the answer. Raises what `failure` takes."""
        settings = self._service.settings
        asked = PREDICTIONS[path_of(flow.request)]
        story.route, story.tasks, story.has_image = "triton", (TASKS[asked],), asked != "textual"
        form = read_form(flow.request, asked, max_parts=settings.max_parts)
        if asked in LIMITED and form.image is not None and protocol.is_too_large(*size_of(form.image)):
            raise BadInput(protocol.TOO_LARGE)
        await self._service.settled()
        part = dispatch.Part(self._service.route(TASKS[asked]), entries_for(asked, settings))
        note_split(flow, [(part.route, part.entries)], {})
        within = settings.deadline if story.has_image else settings.query_deadline
        question = dispatch.Question(form, "", story.began + within, story.timing)
        fragment = await dispatch.answer(self._service, [part], {}, question)
        if asked in LIMITED and protocol.is_too_large(fragment.get("imageWidth", 0), fragment.get("imageHeight", 0)):
            raise BadInput(protocol.TOO_LARGE)  # a file whose head does not tell
        return json_response(200, in_its_shape(asked, fragment, part.route.names[0]))

    @override
    def failure(self, error: BaseException) -> tuple[Response, Reason]:
        """Return the answer for whatever went wrong, and the word for it."""
        if isinstance(error, BadInput):
            return json_response(200, protocol.nothing(str(error))), "bad_input"
        return super().failure(error)


def read_form(request: Request, asked: str, *, max_parts: int) -> Form:
    """Return what a request holds. Raises `ProtocolError` (400, 422)."""
    body = request.raw_content or b""
    if asked == "textual":
        return Form(None, None, protocol.text_of(body))
    return Form(None, protocol.image_of(machine_learning.content_type_of(request), body, max_parts=max_parts), None)


def entries_for(asked: str, settings: Settings) -> list[Entry]:
    """Return what Immich would ask for, with the thresholds of mt-photos-ai."""
    if asked == "ocr":
        return [Entry("ocr", "detection", OWNED), Entry("ocr", "recognition", OWNED, _least(settings.min_text_score))]
    if asked == "faces":
        task = TASKS[asked]
        return [Entry(task, "detection", OWNED, _least(settings.min_face_score)), Entry(task, "recognition", OWNED)]
    return [Entry("clip", asked, OWNED, spelling=OWNED)]


def _least(score: float) -> dict[str, float]:
    return {"minScore": score}


def in_its_shape(asked: str, fragment: protocol.Fragment, model: str) -> dict[str, Any]:
    """Return Immich's answer in the shape of mt-photos-ai's."""
    if asked == "ocr":
        return protocol.ocr(fragment)
    return protocol.faces(fragment, model) if asked == "faces" else protocol.clip(fragment)


def size_of(image: bytes) -> tuple[int, int]:
    """Return width and height by the head of a file; 0 where it does not tell."""
    picture = picture_of(image)
    return picture.width, picture.height
