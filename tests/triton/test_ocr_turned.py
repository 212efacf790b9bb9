"""Pages on their head or on their side: which lines are read once more, what is believed of it, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from immich_pipelines.ocr_ctc import Text
from immich_pipelines.ocr_recognition import cut_line
from immich_pipelines.ocr_turned import PROBES, Turn, read_turned

Array = npt.NDArray[Any]

READ: Text = Text("会议室预订须知", 0.99)
NOISE: Text = Text("精一", 0.6)


@dataclass
class Paper:
    """A page of lines below each other, each with what it says as it stands, and what it says on its head."""

    lines: list[tuple[Text, Text]]
    tall: bool = False
    looked_at: int = 0
    pixels: Array = field(init=False)
    boxes: Array = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros((1000, 1000, 3), np.uint8)
        boxes = []
        for index in range(len(self.lines)):
            x, y, width, height = (60 * index, 0, 50, 300) if self.tall else (0, 60 * index, 300, 50)
            boxes.append([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
            # Its colours say which line it is, and where it begins.
            self.pixels[y : y + height, x : x + width] = index + 100
            half = (slice(y, y + 150), slice(x, x + 50)) if self.tall else (slice(y, y + 50), slice(x, x + 150))
            self.pixels[half] = index
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4, 2)

    async def read(self, lines: Sequence[Array]) -> list[Text]:
        self.looked_at += len(lines)
        return [self._says(line) for line in lines]

    def _says(self, line: Array) -> Text:
        first, last = int(line[24, 12, 0]), int(line[24, -12, 0])
        return self.lines[min(first, last)][first > last]

    def turn(self, minimum: float = 0.8) -> Turn:
        cut = [cut_line(self.pixels, box) for box in self.boxes]
        texts = asyncio.run(self.read(cut))
        self.looked_at = 0
        return asyncio.run(read_turned(self.pixels, self.boxes, cut, texts, minimum, self.read))


def test_a_page_that_is_read_costs_nothing_more() -> None:
    page = Paper([(READ, NOISE)] * 6)
    assert page.turn() == Turn([READ] * 6)
    assert page.looked_at == 0


def test_a_page_on_its_head_is_read_there() -> None:
    assert Paper([(NOISE, READ)] * 6).turn() == Turn([READ] * 6, 2)


def test_a_page_on_its_side_too() -> None:
    assert Paper([(NOISE, READ)] * 6, tall=True).turn() == Turn([READ] * 6, 3)


def test_one_line_on_its_head_leaves_the_page_as_it_is() -> None:
    assert Paper([(READ, NOISE), (NOISE, READ), (READ, NOISE)]).turn() == Turn([READ] * 3)


def test_a_number_that_can_be_read_both_ways_follows_its_page() -> None:
    number = Text("8811", 0.97), Text("1188", 0.95)
    assert Paper([*[(NOISE, READ)] * 3, number]).turn().texts[-1] == number[1]
    assert Paper([*[(READ, NOISE)] * 3, number]).turn().texts[-1] == number[0]


@pytest.mark.parametrize(
    "guess",
    [Text("2", 0.99), Text("JNJ", 0.96), Text("a   r", 0.97), Text("会议室预订", 0.85)],
    ids=["one", "three", "sparse", "unsure"],
)
def test_what_noise_says_on_its_head_is_not_believed(guess: Text) -> None:
    assert Paper([(NOISE, guess)]).turn() == Turn([NOISE])


def test_one_lucky_guess_among_many_lines_is_not_believed() -> None:
    page = Paper([(NOISE, NOISE), (NOISE, NOISE), (NOISE, READ), *[(NOISE, NOISE)] * 9])
    assert page.turn() == Turn([NOISE] * 12)
    assert page.looked_at == PROBES


def test_a_request_for_less_certain_lines_gets_turned_ones_all_the_same() -> None:
    assert Paper([(NOISE, READ)] * 3).turn(minimum=0.1) == Turn([READ] * 3, 2)


@pytest.mark.parametrize(("long", "quarters", "turn"), [((READ, NOISE), 0, 1), ((NOISE, READ), 3, 3)])
def test_a_short_word_of_a_page_on_its_side_is_turned_with_it(
    long: tuple[Text, Text], quarters: int, turn: int
) -> None:
    page = Paper([long, long, (NOISE, NOISE)], tall=True)
    page.boxes[2] = [(700, 700), (760, 700), (760, 760), (700, 760)]
    page.pixels[700:760, 690:770] = np.arange(80)[:, np.newaxis] + 150
    upright = cut_line(page.pixels, np.roll(page.boxes[2], -turn, axis=0))

    async def read(lines: Sequence[Array]) -> list[Text]:
        return [
            page._says(line) if line[24, 24, 0] < 150 else Text("B2", 0.98) if np.array_equal(line, upright) else NOISE
            for line in lines
        ]

    cut = [cut_line(page.pixels, box) for box in page.boxes]
    found = asyncio.run(read_turned(page.pixels, page.boxes, cut, asyncio.run(read(cut)), 0.8, read))
    assert found.quarters == quarters
    assert found.texts[2] == Text("B2", 0.98)


def test_latin_in_tall_boxes_runs_downwards_and_chinese_is_vertical_writing() -> None:
    assert Paper([(Text("Meeting room B203", 0.99), NOISE)] * 3, tall=True).turn().quarters == 1
    assert Paper([(Text("10:30", 0.99), NOISE), (READ, NOISE)], tall=True).turn().quarters == 0
    assert Paper([(Text("Meeting room B203", 0.99), NOISE)] * 3).turn().quarters == 0


def test_no_lines_are_no_question() -> None:
    assert Paper([]).turn() == Turn([])
