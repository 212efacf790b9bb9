"""Simplified and traditional characters: what the page decides, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from immich_pipelines.ocr_ctc import Decoder, Text
from immich_pipelines.ocr_variants import Table, settled

SIMPLIFIED_ROWS = ("广廣", "场場", "减減", "烟煙", "请請", "车車", "发發髮", "国國")
TRADITIONAL_ROWS = ("廣广", "場场", "減减", "煙烟", "請请", "車车", "發发", "髮发", "國国", "註注", "臺台")
CHARACTERS = "".join(dict.fromkeys("".join((*SIMPLIFIED_ROWS, *TRADITIONAL_ROWS)) + "人民去行いますの中"))
DECODE = Decoder("\n".join(CHARACTERS), SIMPLIFIED_ROWS, TRADITIONAL_ROWS)
TABLE = Table.of(["", *CHARACTERS, " "], SIMPLIFIED_ROWS, TRADITIONAL_ROWS)


def line(text: str, **doubts: float) -> Text:
    """Return *text* as a recogniser reads it: sure of each character, but that of *doubts* have a likely variant."""
    indices = np.array([CHARACTERS.index(character) + 1 for character in text])
    scores = np.full(len(text), 0.99, np.float32)
    others = np.full((len(text), 4), 1e-6, np.float32)
    for character, likely in doubts.items():
        step = text.index(character)
        scores[step], others[step, 1] = 1 - likely, likely
    # A blank between two steps keeps those of equal characters apart.
    spread = np.arange(len(text)) * 2
    steps = [np.zeros((1, 2 * len(text), *value.shape[1:]), value.dtype) for value in (indices, scores, others)]
    for target, value in zip(steps, (indices, scores, others), strict=True):
        target[0, spread] = value
    (read,) = DECODE(*steps)
    return read


def page(*lines: Text) -> list[str]:
    return settled([(text.words, text.choices) for text in lines])


SIMPLIFIED = line("请车场广国"), line("国车请")
TRADITIONAL = line("請車場廣國"), line("國車請")


def test_a_table_knows_the_script_of_a_character_and_its_variants() -> None:
    def of(character: str) -> tuple[int, list[str]]:
        index = CHARACTERS.index(character) + 1
        others = TABLE.others[index]
        assert others[0] == len(CHARACTERS) + 1  # the space
        return int(TABLE.script[index]), [CHARACTERS[other - 1] for other in others[1:] if other]

    assert of("广") == (1, ["廣"])
    assert of("廣") == (-1, ["广"])
    assert of("发") == (1, ["發", "髮"])
    # Right in both scripts: 註 may be 注, on no page the other way round.
    assert of("注") == (0, [])
    assert of("註") == (-1, ["注"])
    assert of("台") == (0, [])
    assert of("臺") == (-1, ["台"])
    assert of("人") == (0, [])


@pytest.mark.parametrize(("others", "wrong", "right"), [(SIMPLIFIED, "減", "减"), (TRADITIONAL, "减", "減")])
def test_the_page_decides_what_the_network_is_in_doubt_about(others: tuple[Text, ...], wrong: str, right: str) -> None:
    assert page(line(f"{wrong}行", **{wrong: 0.3}), *others)[0] == f"{right}行"
    # The page is of one mind with the network, or the network is sure: 1 in 10,000 is no second choice.
    assert page(line(f"{right}行", **{right: 0.3}), *others)[0] == f"{right}行"
    assert page(line(f"{wrong}行", **{wrong: 1e-4}), *others)[0] == f"{wrong}行"


def test_a_line_alone_is_decided_by_its_other_characters() -> None:
    assert page(line("请车烟", 烟=0.4)) == ["请车烟"]
    assert page(line("请车煙", 煙=0.4)) == ["请车烟"]
    # With nothing else to go by, the network's word stands.
    assert page(line("行煙", 煙=0.4)) == ["行煙"]


def test_a_page_of_both_scripts_leaves_each_line_to_itself() -> None:
    mixed = [*SIMPLIFIED, *TRADITIONAL]
    assert page(line("減行", 減=0.4), *mixed)[0] == "減行"
    assert page(line("请車減", 減=0.1, 車=0.3), *mixed)[0] == "请车减"
    assert page(line("請車减", 减=0.1), *mixed)[0] == "請車減"
    assert page(*mixed) == [text.words for text in mixed]


def test_a_quotation_in_the_other_script_stays() -> None:
    assert page(line("請車廣", 廣=0.2), *SIMPLIFIED, *SIMPLIFIED)[0] == "請車廣"


def test_what_is_usual_in_both_scripts_is_wrong_in_neither() -> None:
    assert page(line("注行", 注=0.45), *TRADITIONAL)[0] == "注行"
    assert page(line("註行", 註=0.45), *TRADITIONAL)[0] == "註行"
    assert page(line("註行", 註=0.45), *SIMPLIFIED)[0] == "注行"
    assert page(line("台行", 台=0.45), *TRADITIONAL)[0] == "台行"
    assert page(line("臺行", 臺=0.45), *SIMPLIFIED)[0] == "台行"


def test_japanese_has_characters_of_both_scripts() -> None:
    japanese = line("国いますの"), line("車いますの"), line("請場いますの")
    assert page(line("国行", 国=0.4), *japanese)[0] == "国行"
    # A sign in Chinese may borrow a の.
    assert page(line("减行", 减=0.4), line("中の國"), *TRADITIONAL, *TRADITIONAL)[0] == "減行"


def test_lines_without_choices_are_as_they_were() -> None:
    assert page(line("人民"), Text("abc", 0.9)) == ["人民", "abc"]
    assert settled([]) == []
