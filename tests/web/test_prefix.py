"""What counts as ``ocr:`` in a query, and what its two halves are."""

from __future__ import annotations

import pytest

from immich_triton.web.prefix import split


@pytest.mark.parametrize(
    ("query", "picture", "text"),
    [
        ("ocr:发票", "", "发票"),
        ("OCR:发票", "", "发票"),
        ("Ocr：发票", "", "发票"),
        ("ocr ：  发票", "", "发票"),
        ("  ocr: 发票  合计 ", "", "发票 合计"),
        ("ＯＣＲ：发票", "", "发票"),
        ("海边 ocr:发票", "海边", "发票"),
        ("海边ocr:发票", "海边", "发票"),
        ("a dog on the beach OCR : no smoking", "a dog on the beach", "no smoking"),
        ("ocr:停水 ocr:通知", "", "停水 通知"),
        ("ocr:", "", ""),
        ("ocr：　", "", ""),
        ("海边 ocr:", "海边", ""),
    ],
)
def test_with_the_prefix(query: str, picture: str, text: str) -> None:
    assert split(query) == (picture, text)


@pytest.mark.parametrize(
    "query", ["cat", "海边", "ocr", "mediocr: x", "my_ocr:x", "3ocr:x", "o cr:x", "", "time 12:30"]
)
def test_without_it(query: str) -> None:
    assert split(query) == (query, None)
