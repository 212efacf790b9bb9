"""Every PP-OCR version: exported, described, and read with as RapidOCR reads with it."""

from __future__ import annotations

from pathlib import Path

import ocr_export_checks
import ocr_exports
import pytest
from ocr_parity import IMAGES, Readers

from immich_triton.export.ocr.sources import VERSIONS

# One worker makes the exports.
pytestmark = pytest.mark.xdist_group("triton")
OTHERS = [version for version in VERSIONS if version not in ocr_exports.DEFAULTS]


def test_there_are_others() -> None:
    assert OTHERS


@pytest.fixture(scope="module", params=OTHERS)
def exported(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, ocr_exports.build(request.param)


def test_it_is_described(exported: tuple[str, Path]) -> None:
    version, models = exported
    ocr_export_checks.expect_networks(models)
    ocr_export_checks.expect_dictionary(version, models)
    ocr_export_checks.expect_route(models)
    ocr_export_checks.expect_record(version, models)


@pytest.fixture(scope="module", params=VERSIONS)
def readers(request: pytest.FixtureRequest) -> Readers:
    return Readers.of(request.param)


@pytest.mark.parametrize("name", IMAGES)
def test_texts_and_boxes_are_those_of_rapidocr(readers: Readers, name: str) -> None:
    readers.compare(name)


def test_the_width_of_the_padding_moves_spaces_at_most(readers: Readers) -> None:
    readers.compare_widths("zh_receipt.jpg")
