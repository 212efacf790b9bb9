"""Who sits the exam: any Immich machine-learning service, or RapidOCR in this process."""

from __future__ import annotations

import io
import time
from typing import Any, Protocol

import numpy as np
from PIL import Image

from immich_triton.immich.ml_client import entries_for, predict
from ocr_eval.pages import Page
from ocr_eval.scoring import Found, Reading


class ReaderError(RuntimeError):
    """An engine gave no usable answer; says which and what it said."""


class Reader(Protocol):
    """Reads a page; returns what it found and the seconds that the full answer took."""

    name: str

    def read(self, page: Page) -> tuple[Reading, float]:
        """Read *page*. Raises `ReaderError`."""


class ServiceReader:
    """A gateway or a stock Immich ML at *url*, asked as Immich asks.

    Twice for each page: detection alone, whose boxes give the recall, then everything, which drops lines below the
    recognition score.
    """

    def __init__(self, name: str, url: str, *, model: str | None = None) -> None:
        self.name = name
        self._url = url
        self._entries = entries_for("ocr", model)

    def read(self, page: Page) -> tuple[Reading, float]:
        """Read *page*; the seconds are those of the full answer. Raises `ReaderError`."""
        detection = {"ocr": {"detection": self._entries["ocr"]["detection"]}}
        boxes, _ = self._ask(detection, page)
        body, seconds = self._ask(self._entries, page)
        # Detection alone answers in pixels, the full answer in fractions of the page.
        detected = [Found(np.array(quad, dtype=np.float64).reshape(4, 2)) for quad in boxes["boxes"]]
        corners = np.array(body["box"], dtype=np.float64).reshape(-1, 4, 2) * [page.width, page.height]
        return Reading(detected, [Found(quad, text) for quad, text in zip(corners, body["text"], strict=True)]), seconds

    def _ask(self, entries: dict[str, Any], page: Page) -> tuple[dict[str, Any], float]:
        try:
            answer = predict(self._url, entries, image=page.jpeg)
        except OSError as error:  # requests' errors are OSErrors
            raise ReaderError(f"{self.name}: nobody answers at {self._url}: {error}") from error
        if answer.status != 200:
            raise ReaderError(f"{self.name}: {self._url} answered {answer.status} for {page.name}: {answer.body}")
        fragment: dict[str, Any] = answer.body["ocr"]
        return fragment, answer.seconds


class RapidReader:
    """RapidOCR's own engine with its own models (PP-OCRv4), in this process, on *threads* threads.

    Everything as RapidOCR ships it but the two scores, which are Immich's defaults: 0.5 for a box, 0.8 for a text.
    """

    name = "RapidOCR"

    def __init__(self, threads: int) -> None:
        # Heavy to import, and only needed with --engine.
        from rapidocr_onnxruntime import RapidOCR

        entries = entries_for("ocr")["ocr"]
        self._minimum = entries["recognition"]["options"]["minScore"]
        self._engine = RapidOCR(
            text_score=self._minimum,
            box_thresh=entries["detection"]["options"]["minScore"],
            intra_op_num_threads=threads,
        )

    def read(self, page: Page) -> tuple[Reading, float]:
        """Read *page*; decoding its JPEG is part of the time."""
        started = time.perf_counter()
        pixels = np.asarray(Image.open(io.BytesIO(page.jpeg)).convert("RGB"))[:, :, ::-1]
        # One run gives both: RapidOCR's own score filter is undone, then applied here.
        result, _ = self._engine(np.ascontiguousarray(pixels), text_score=0.0)
        seconds = time.perf_counter() - started
        boxes = [(Found(np.array(quad, dtype=np.float64), text), float(score)) for quad, text, score in result or []]
        return Reading([box for box, _ in boxes], [box for box, score in boxes if score > self._minimum]), seconds
