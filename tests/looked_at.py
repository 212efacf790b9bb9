"""A gateway under mitmweb for a test, between a stand-in for Triton and one for the stock ML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitmweb import Mitmweb, running_mitmweb
from recorder import Recorder, recording_upstream
from stand_in_triton import StandInTriton, stand_in_triton, write_routes


@dataclass
class LookedAt:
    """mitmweb and who stands behind it."""

    web: Mitmweb
    triton: StandInTriton
    stock: Recorder


@contextmanager
def looked_at(directory: Path, **options: Any) -> Iterator[LookedAt]:
    """Run all three; Triton reads one line of text in every image, and so does the stock ML."""
    with (
        stand_in_triton() as triton,
        recording_upstream() as stock,
        running_mitmweb(
            directory,
            models=write_routes(directory / "models"),
            triton_url=triton.url,
            upstream=stock.url,
            **options,
        ) as web,
    ):
        stock.answer = (200, ocr_answer(1))
        yield LookedAt(web, triton, stock)


def ocr_answer(lines: int) -> bytes:
    """Return an answer to OCR in which so many lines stand where the stand-in for Triton sees its one."""
    box = [0.1, 0.1, 0.9, 0.1, 0.9, 0.2, 0.1, 0.2]
    ocr = {"box": box * lines, "boxScore": [0.9] * lines, "text": ["text"] * lines, "textScore": [0.95] * lines}
    return json.dumps({"ocr": ocr, "imageHeight": 48, "imageWidth": 64}).encode()


MANY_LINES = 30_000
"""So many lines in one place take seconds to compare, on any machine."""
