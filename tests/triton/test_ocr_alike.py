"""Characters that look alike: when the more usual one is meant, and dashes that stay."""

from __future__ import annotations

import numpy as np
import pytest

from immich_pipelines.ocr_ctc import Decoder, Text
from immich_triton.export.ocr import chinese_variants

WORDS = "乾凈淨净整潔水下一班车車第届屆星期五十月二請请註注意冊册備关關不足北京上海A-–—―－2026:09地站行"
CHARACTERS = "".join(dict.fromkeys(WORDS))
PAIRS = chinese_variants.alike(CHARACTERS)
DECODE = Decoder("\n".join(CHARACTERS), *chinese_variants.of_one_script(CHARACTERS), PAIRS)


def read(text: str, likely: float = 0.3) -> Text:
    """Return what is made of *text*, read surely but for the usual ones that its characters look like."""
    usual = {pair[0] for pair in PAIRS}
    steps = 2 * len(text)
    indices = np.zeros((1, steps), np.int32)
    scores = np.full((1, steps), 1 - likely, np.float32)
    others = np.zeros((1, steps, 4), np.float32)
    for place, character in enumerate(text):
        indices[0, 2 * place] = CHARACTERS.index(character) + 1
        if character in usual:
            others[0, 2 * place, 3] = likely
    (line,) = DECODE(indices, scores, others)
    return line


@pytest.mark.parametrize(
    ("seen", "meant"),
    [
        ("乾凈整潔", "乾淨整潔"),
        ("凈水", "淨水"),
        ("下—班车", "下一班车"),
        ("下－班車", "下一班車"),
        ("第—届", "第一届"),
        ("第-", "第一"),
        ("星期—", "星期一"),
        ("十—月", "十一月"),
        ("請註意行车", "請注意行车"),
        ("關註", "關注"),
    ],
)
def test_the_usual_character_is_read_where_it_is_meant(seen: str, meant: str) -> None:
    assert read(seen).words == meant
    # Without a real second choice nothing changes.
    assert read(seen, 0.02).words == seen


@pytest.mark.parametrize(
    "text",
    [
        *("北京—上海", "北京-上海", "北京－上海", "星期五—星期二", "二—十月", "十—十二月", "地下—地上"),
        *("2026-09-26", "9:00-26:00", "A-A", "A—A", "下—2", "第—2", "第—A", "——", "—", "-2"),
        *("註冊", "備註", "不足"),
    ],
)
def test_what_may_be_meant_stays(text: str) -> None:
    assert read(text, 0.45).words == text


def test_a_character_put_right_is_one_of_its_script() -> None:
    (clean,) = [choice for choice in read("乾凈").choices if choice.place == 1]
    assert (clean.script, [variant for variant, _ in clean.variants]) == (-1, ["净"])
    # 注 is of both scripts, so that it tells nothing; 註 alone is of one.
    assert [choice.place for choice in read("註意").choices] == []
    assert [choice.place for choice in read("註冊").choices] == [0, 1]


def test_a_pair_needs_a_free_place() -> None:
    with pytest.raises(ValueError, match="一 has 3 variants already, and no place for 二"):
        Decoder("一\n二\n三\n四", ["一二三四"], [], ["一二"])
