"""What the recogniser is given when the pipeline reads pages, by a detector of a few weights."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
from PIL import Image
from tiny_ocr import detector

from immich_triton.export.ocr.calibration_lines import calibration_lines
from immich_triton.export.ocr.models import build_detector


def jpeg(*places: tuple[int, int, int, int]) -> bytes:
    page = np.full((736, 992, 3), 255, np.uint8)
    for top, bottom, left, right in places:
        page[top:bottom, left:right] = 0
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_lines_in_batches_and_on_their_heads(tmp_path: Path) -> None:
    onnx.save(detector(), tmp_path / "source.onnx")
    build_detector(tmp_path / "source.onnx", tmp_path / "model.onnx")
    files = [jpeg((100, 140, 100, 500), (300, 340, 100, 500)), jpeg((200, 240, 50, 950))]
    lines, turned = calibration_lines(tmp_path / "model.onnx", files)
    assert sum(len(batch) for batch in lines) == 3
    assert all(batch.dtype == np.float32 and batch.shape[1:3] == (3, 48) for batch in lines)
    # Black ink is -1 for the network, and paper 1.
    assert min(float(batch.min()) for batch in lines) < -0.9
    assert min(batch.shape[3] for batch in lines) < 640
    # On their heads: the padding, which is 0, stays at the right.
    assert [batch.shape for batch in turned] == [batch.shape for batch in lines]
    wide = int(np.flatnonzero(lines[0][0].any(axis=(0, 1)))[-1]) + 1
    np.testing.assert_array_equal(turned[0][0, :, :, :wide], lines[0][0, :, ::-1, :wide][..., ::-1])
