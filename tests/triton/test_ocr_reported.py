"""Pages drawn after public bug reports, read by the real networks in this process: every line, in reading order."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import ocr_exports
import pytest
from ocr_parity import networks
from PIL import Image

from immich_pipelines.ocr import Knobs, Networks, Page, read

FOLDER = Path(__file__).resolve().parents[1] / "data" / "reported"
TRUTH: dict[str, list[str]] = json.loads((FOLDER / "truth.json").read_text(encoding="utf-8"))
LOST_BY_THE_MODEL = str.maketrans("", "", " 、。「」っッょー")
"""Small kana and the marks of Japanese, which this recogniser does not see in vertical writing; and spaces."""
NOTICE = TRUTH["page_upside_down.jpg"]


@pytest.fixture(scope="module")
def reader() -> Networks:
    return networks(ocr_exports.build("v5+v6"))


def read_page(reader: Networks, data: bytes) -> Page:
    return asyncio.run(read(data, Knobs(), reader))


def plain(texts: list[str]) -> str:
    # Joined: a comma parts a column in two boxes. The recogniser has both forms of one rare character.
    return "".join(texts).translate(LOST_BY_THE_MODEL).replace("渙", "涣")


@pytest.mark.parametrize("name", TRUTH)
def test_it_is_read_in_order(reader: Networks, name: str) -> None:
    assert plain(read_page(reader, (FOLDER / name).read_bytes()).texts) == plain(TRUTH[name])


@pytest.mark.parametrize("degrees", [5, 35, 85, 100, 150, 200, 240, 275])
def test_a_page_turned_by_any_angle_is_read(reader: Networks, degrees: int) -> None:
    upright = Image.open(FOLDER / "page_upside_down.jpg").rotate(180)
    page = io.BytesIO()
    upright.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white").save(page, "PNG")
    assert plain(read_page(reader, page.getvalue()).texts) == plain(NOTICE)


def test_corners_are_those_of_the_page_also_of_text_on_its_head(reader: Networks) -> None:
    boxes = read_page(reader, (FOLDER / "page_upside_down.jpg").read_bytes()).boxes.reshape(-1, 4, 2)
    top_left, top_right, bottom_right, bottom_left = boxes.swapaxes(0, 1)
    assert (top_left[:, 0] < top_right[:, 0]).all()
    assert (top_left[:, 1] < bottom_left[:, 1]).all()
    assert (bottom_right > top_left).all()
