"""A second look at lines that may be in the other Chinese script: which are asked, and what the answer changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from immich_pipelines.ocr_ctc import Decoder, Text
from immich_pipelines.ocr_second_look import LOOKS, second_look
from immich_pipelines.ocr_variants import settled

SIMPLIFIED_ROWS = ("广廣", "场場", "请請", "车車", "国國")
TRADITIONAL_ROWS = ("廣广", "場场", "請请", "車车", "國国", "臺台")
CHARACTERS = "".join(dict.fromkeys("".join((*SIMPLIFIED_ROWS, *TRADITIONAL_ROWS)) + "人民行いますの"))
DECODE = Decoder("\n".join(CHARACTERS), SIMPLIFIED_ROWS, TRADITIONAL_ROWS)

Array = npt.NDArray[Any]
IMAGE = np.arange(48 * 8 * 3, dtype=np.uint16).reshape(48, 8, 3).astype(np.uint8)


def line(text: str, doubt: float = 1e-6) -> Text:
    """Return *text* as a recogniser reads it whose characters have a variant that is so likely."""
    characters = text.replace(" ", "")
    indices = np.zeros((1, 2 * len(characters)), np.int32)
    indices[0, ::2] = [CHARACTERS.index(character) + 1 for character in characters]
    others = np.full((1, 2 * len(characters), 4), doubt, np.float32)
    (read,) = DECODE(indices, np.full(indices.shape, 1 - doubt, np.float32), others)
    return read


class Look:
    """A recogniser that says *texts* at the second look, and remembers what it was shown."""

    def __init__(self, *texts: Text) -> None:
        self.texts = list(texts)
        self.shown: list[Array] = []

    async def __call__(self, images: Sequence[Array]) -> list[Text]:
        self.shown += images
        answer, self.texts = self.texts[: len(images)], self.texts[len(images) :]
        return answer


def page(look: Look, *lines: Text) -> list[str]:
    found = asyncio.run(second_look([IMAGE] * len(lines), lines, look))
    assert [text.score for text in found] == [text.score for text in lines]
    return settled([(text.words, text.choices) for text in found])


SIMPLIFIED = line("请车场广国"), line("国车请")
TRADITIONAL = line("請車場廣國"), line("國車請")
DOUBT = 0.03


def test_a_line_against_its_page_is_what_the_second_look_says_with_it() -> None:
    look = Look(line("广场车行", 0.2))
    assert page(look, line("廣場車行", DOUBT), *SIMPLIFIED * 2)[0] == "广场车行"
    assert page(Look(line("廣場車行", 0.2)), line("广场车行", DOUBT), *TRADITIONAL * 2)[0] == "廣場車行"
    # It was shown the line with half of its contrast, around the grey of no signal.
    (shown,) = look.shown
    assert shown.dtype == np.uint8
    assert np.abs((shown.astype(float) - 127.5) - (IMAGE.astype(float) - 127.5) / 2).max() <= 1


def test_a_line_that_stays_in_its_script_is_the_surer_of_it() -> None:
    # The page would have it otherwise, and the character is the only one of the line.
    seen = line("国行", 0.35)
    assert settled([(text.words, text.choices) for text in (seen, *TRADITIONAL)])[0] == "國行"
    assert page(Look(line("国行", 0.05)), seen, *TRADITIONAL)[0] == "国行"
    assert page(Look(line("国行", 0.3)), seen, *TRADITIONAL)[0] == "國行"


def test_the_page_decides_where_it_outweighs_both_looks() -> None:
    first, blurred, plain = line("广场车行", 0.2), line("广场车行", 0.3), line("广场车行", 0.1)
    assert page(Look(blurred), first, *TRADITIONAL * 2)[0] == "廣場車行"
    # In the other direction.
    assert page(Look(line("廣場車行", 0.3)), line("廣場車行", 0.2), *SIMPLIFIED * 2)[0] == "广场车行"
    # Either look may tell that the line is the only one in its script, unless there are so many others.
    assert page(Look(plain), first, *TRADITIONAL * 2)[0] == "广场车行"
    assert page(Look(blurred), line("广场车行", DOUBT), *TRADITIONAL * 2)[0] == "广场车行"
    assert page(Look(plain), first, *TRADITIONAL * 3)[0] == "廣場車行"
    # Nothing speaks against it.
    assert page(Look(blurred), first, *TRADITIONAL, *SIMPLIFIED)[0] == "广场车行"
    assert page(Look(blurred), first)[0] == "广场车行"
    # What was not seen again goes with the rest, by what the first look had.
    assert page(Look(line("广场民行", 0.3)), first, *TRADITIONAL * 2)[0] == "廣場車行"


def test_no_page_outweighs_two_looks_that_are_sure() -> None:
    first, again = line("广场车行", DOUBT), line("广场车行", 0.02)
    assert page(Look(again), first, *TRADITIONAL * 9)[0] == "广场车行"


def test_a_long_line_weighs_as_much_as_a_short_one() -> None:
    # Its characters were taken for one script together.
    first, again = line("广场车国请行", 0.2), line("广场车国请行", 0.3)
    assert page(Look(again), first, *TRADITIONAL * 2)[0] == "廣場車國請行"
    assert page(Look(line("国行", 0.3)), line("国行", 0.2), *TRADITIONAL * 2)[0] == "國行"


def test_a_line_of_both_scripts_is_put_into_the_one_that_looks_and_page_say() -> None:
    # One character outweighs the others and the page, but not on the average.
    mixed = line("國場", 0.2)
    (odd,) = line("广", 0.01).choices
    mixed = mixed._replace(words="國場广", choices=(*mixed.choices, odd._replace(place=2)))
    assert settled([(text.words, text.choices) for text in (mixed, *TRADITIONAL)])[0] == "国场广"
    assert page(Look(mixed), mixed, *TRADITIONAL)[0] == "國場廣"


def test_the_page_turns_no_character_whose_variant_neither_look_had_as_a_second_choice() -> None:
    (sure,) = line("國").choices
    first = line("場國", 0.3)
    first = first._replace(choices=(first.choices[0], sure._replace(place=1)))
    many = SIMPLIFIED * 20
    assert page(Look(line("场國")), first, *many)[0] == "场國"
    assert page(Look(line("场國", 0.01)), first, *many)[0] == "场国"


def test_a_line_of_both_scripts_is_looked_at_again_whatever_the_page_says() -> None:
    mixed = line("广場車國行", 0.2)
    assert settled([(text.words, text.choices) for text in (mixed, *TRADITIONAL)])[0] == "廣場車國行"
    assert page(Look(line("广场车国行", 0.01)), mixed, *TRADITIONAL)[0] == "广场车国行"
    # The second look is of the page's mind, or not sure enough.
    assert page(Look(line("廣場車國行", 0.01)), mixed, *TRADITIONAL)[0] == "廣場車國行"
    assert page(Look(line("广场车国行", 0.4)), mixed, *TRADITIONAL)[0] == "廣場車國行"


@pytest.mark.parametrize("lines", [(line("廣場車行", DOUBT),), (line("廣場車行", DOUBT), *SIMPLIFIED, *TRADITIONAL)])
def test_where_the_page_tells_nothing_the_surer_look_counts(lines: tuple[Text, ...]) -> None:
    assert page(Look(line("广场车行", 0.01)), *lines)[0] == "广场车行"
    assert page(Look(line("广场车行", 0.1)), *lines)[0] == "廣場車行"


@pytest.mark.parametrize(
    "lines",
    [
        TRADITIONAL,
        # Sure of itself, a quotation.
        (TRADITIONAL[0], *SIMPLIFIED, *SIMPLIFIED),
        # Of the page's mind, though in doubt.
        (line("广场车行", DOUBT), *SIMPLIFIED),
        (line("人民行"), *SIMPLIFIED),
        # Japanese has characters of both.
        (line("国車行", DOUBT), line("國いますの"), line("車いますの")),
        (),
    ],
)
def test_others_are_not_read_again(lines: tuple[Text, ...]) -> None:
    look = Look()
    assert page(look, *lines) == [text.words for text in lines]
    assert look.shown == []


def test_no_page_costs_more_than_a_few_lines() -> None:
    doubtful = [line("廣場車行", DOUBT) for _ in range(LOOKS + 2)]
    least = line("廣場車行", 0.2)
    look = Look(*[line("广场车行", 0.1)] * LOOKS)
    found = page(look, *doubtful, least, *SIMPLIFIED * 6)
    assert len(look.shown) == LOOKS
    # The one that was in the greatest doubt is among them.
    assert found[LOOKS + 2] == "广场车行"


@pytest.mark.parametrize(
    "second",
    [
        # Something else was read: an upright line that had been turned, a line of other characters.
        line("人民"),
        line("行国民人", 0.2),
        Text("", 0.0),
    ],
)
def test_only_variants_in_the_same_places_count(second: Text) -> None:
    assert page(Look(second), line("廣場車行", DOUBT), *SIMPLIFIED)[0] == "廣場車行"


@pytest.mark.parametrize("second", [line("国行民"), line("人行"), Text("", 0.0)])
def test_a_second_look_at_something_else_confirms_nothing(second: Text) -> None:
    assert page(Look(second), line("国行", 0.22), *TRADITIONAL)[0] == "國行"


def test_a_character_that_was_read_otherwise_stays_and_so_do_spaces() -> None:
    first = line("廣場車行", DOUBT)
    spaced = first._replace(
        words="廣場 車行",
        choices=tuple(choice._replace(place=choice.place + (choice.place > 1)) for choice in first.choices),
    )
    assert page(Look(line("广场车民", 0.2)), spaced, *SIMPLIFIED * 2)[0] == "广场 车行"


def test_what_both_scripts_have_is_no_choice_any_more() -> None:
    assert page(Look(line("台车行", 0.2)), line("臺車行", DOUBT), *SIMPLIFIED * 2)[0] == "台车行"
