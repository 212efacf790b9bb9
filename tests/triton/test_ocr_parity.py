"""The pipeline's logic against RapidOCR's own classes, in this process.

The versions that an export chooses by itself are read here, the others in slow/test_ocr_versions.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import ocr_exports
import pytest
from ocr_parity import IMAGES, Readers, plain

STOCK = Path(__file__).resolve().parents[1] / "data" / "stock" / "zh_receipt.jpg.ocr.json"


@pytest.fixture(scope="module")
def readers() -> Readers:
    return Readers.of("v5+v6")


@pytest.mark.parametrize("name", IMAGES)
def test_texts_and_boxes_are_those_of_rapidocr(readers: Readers, name: str) -> None:
    readers.compare(name)


def test_those_of_the_version_for_cpus_without_bf16_too() -> None:
    assert "v5" in ocr_exports.DEFAULTS
    Readers.of("v5").compare("zh_receipt.jpg")


def test_the_width_of_the_padding_moves_spaces_at_most(readers: Readers) -> None:
    readers.compare_widths("zh_receipt.jpg")


def test_the_receipt_is_read_in_order(readers: Readers) -> None:
    page = readers.read("zh_receipt.jpg")
    stock = json.loads(STOCK.read_text())["ocr"]
    # Stock answers these lines from the bottom up.
    assert [plain(text) for text in page.texts] == [plain(text) for text in reversed(stock["text"])]
    assert (np.diff(page.boxes[:, 1]) > 0).all()
