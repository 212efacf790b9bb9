"""The pipeline's logic against RapidOCR's own classes, in this process.

Ours differs on purpose where text leans or lies on its head, in the order of lines, which RapidOCR leaves to the
contours, in characters of the other Chinese script and in spaces that RapidOCR loses; the last tests say how. The
versions that an export chooses by itself are read here, the others in slow/test_ocr_versions.py.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import ocr_exports
import pytest
from ocr_parity import IMAGES, Readers, plain

from immich_pipelines.ocr import Knobs, read
from ocr_eval import fonts
from ocr_eval.pages import exam

REPORTED = Path(__file__).resolve().parents[1] / "data" / "reported"
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


@pytest.mark.parametrize("name", ["column_24_leaning_3_clockwise.jpg", "page_upside_down.jpg"])
def test_what_rapidocr_loses_is_read_on_purpose(readers: Readers, name: str) -> None:
    data = (REPORTED / name).read_bytes()
    assert readers.reference.read(data, own_widths=False) == []
    assert len(asyncio.run(read(data, Knobs(), readers.ours)).texts) >= 3


def test_corners_that_rapidocr_names_wrongly_differ_on_purpose(readers: Readers) -> None:
    data = (REPORTED / "column_14_leaning_5_counterclockwise.jpg").read_bytes()
    (line,) = readers.reference.read(data, own_widths=False)
    page = asyncio.run(read(data, Knobs(), readers.ours))
    assert page.texts == [line.text]
    corners = page.boxes.reshape(4, 2) * page.size[::-1]
    # The same box, but TR BR BL TL there: it leans to the left, so that its two leftmost corners are both at the top.
    np.testing.assert_allclose(corners[[1, 2, 3, 0]], line.box, atol=2)


@pytest.mark.skipif(
    bool(fonts.missing_packages()),
    reason=f"Debian fonts are not installed: apt-get install {' '.join(fonts.missing_packages())}",
)
def test_characters_of_the_other_script_differ_on_purpose(readers: Readers) -> None:
    page = next(exam())
    theirs = {line.text for line in readers.reference.read(page.jpeg, own_widths=False)}
    ours = set(asyncio.run(read(page.jpeg, Knobs(), readers.ours)).texts)
    # Both see 減 rather than 减; all the rest of the page is in simplified characters.
    assert theirs - ours == {"雨天路滑減速慢行"}
    assert ours - theirs == {"雨天路滑减速慢行"}
