"""CTC decoding: as RapidOCR's, and spaces where the likeliest class of no step is one."""

from __future__ import annotations

import numpy as np
import pytest
from rapidocr_onnxruntime.ch_ppocr_rec.utils import CTCLabelDecode

from immich_pipelines.ocr_ctc import Decoder

CHARACTERS = "ab19中文-"


@pytest.mark.parametrize("seed", range(20))
def test_texts_and_scores_are_rapidocrs(seed: int) -> None:
    random = np.random.default_rng(seed)
    indices = random.choice(
        len(CHARACTERS) + 2, (4, 30), p=[0.5, *[0.5 / (len(CHARACTERS) + 1)] * (len(CHARACTERS) + 1)]
    )
    scores = random.uniform(0, 1, indices.shape).astype(np.float32)
    theirs = CTCLabelDecode(character=list(CHARACTERS)).decode(indices, scores, is_remove_duplicate=True)
    ours = Decoder("\n".join(CHARACTERS))(indices, scores)
    assert [text.words for text in ours] == [text for text, _ in theirs]
    assert [text.score for text in ours] == pytest.approx([score for _, score in theirs], abs=1e-12)


def read(pattern: str, space: dict[int, float]) -> str:
    """Return what *pattern* says, a class a step and ``_`` for the blank, where a space is so likely at some steps."""
    decode = Decoder("\n".join(CHARACTERS))
    indices = np.array([[CHARACTERS.find(character) + 1 for character in pattern]])
    others = np.zeros((1, len(pattern), 4), np.float32)
    for step, likely in space.items():
        others[0, step, 0] = likely
    (text,) = decode(indices, np.ones(indices.shape, np.float32), others)
    return text.words


@pytest.mark.parametrize(
    ("pattern", "space", "words"),
    [
        # Four steps apart, and a space is likelier than one in ten.
        ("a___b", {2: 0.15}, "a b"),
        ("a___b", {2: 0.05}, "ab"),
        # Nearer, and it has to be likelier.
        ("a__b", {1: 0.15}, "ab"),
        ("a__b", {1: 0.3}, "a b"),
        ("a_b", {1: 0.45}, "ab"),
        # On a step of the character before, or where it is drawn out.
        ("aa__b", {1: 0.3}, "a b"),
        ("9___-___1", {2: 0.4, 6: 0.4}, "9 - 1"),
        # Chinese sets none.
        ("中___文", {2: 0.4}, "中文"),
        ("a___中", {2: 0.4}, "a中"),
        ("中___1", {2: 0.4}, "中1"),
    ],
)
def test_a_space_is_set_where_it_is_likely_and_the_gap_is_wide(
    pattern: str, space: dict[int, float], words: str
) -> None:
    assert read(pattern, space) == words


def test_an_export_without_alternatives_is_read_as_before() -> None:
    (text,) = Decoder("a\nb")(np.array([[1, 0, 0, 0, 2]]), np.ones((1, 5), np.float32))
    assert (text.words, text.choices) == ("ab", ())
