"""Characters that look alike, one of them more usual: 凈 is nearly always 淨, 註意 is 注意, a dash in 下—班车 is 一."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LIKELY: Final = 0.04
"""How likely the usual character must be at that step, for one that was read. Where 淨 stands it is more likely than
that, even when 凈 is read; where 凈 stands, mostly not."""

ONE: Final = "一"
"""A horizontal stroke in the middle of a line, as a dash is: what the network says does not tell it from a dash between
Chinese words, as in 北京—上海. The words do."""

POUR: Final = "注"
"""It looks like 註, with which others words are written (註冊, 備註, 註定)."""
BEHIND_POUR: Final = frozenset("意入射視视目重")
BEFORE_POUR: Final = frozenset("關关專专灌")
"""注意, 關注."""

COUNTED: Final = ("第", "星期", "礼拜", "禮拜")
"""A number follows on these."""

WHICH: Final = frozenset("下上每同另这這那哪某")
COUNTERS: Final = frozenset("班站步次个個代位章节節篇幕轮輪层層批行列句段集期届屆场場局排页頁年天")
"""下一班, 每一层: between one of the former and one of the latter stands a number."""

TEN: Final = "十"
ELEVENTH: Final = frozenset("月日点點号號楼樓层層")
"""十一月; ranges as 十—十二月 have a number behind the dash."""


def meant(characters: Sequence[str], place: int, usual: str, likely: float) -> bool:
    """Tell whether what was read at *place* of a line is *usual* rather.

    *likely*: how likely that is, for one of what was read. 注 for 註 besides needs a word that is written so, 一 for a
    dash words around it in which a dash makes no sense; every other dash stays one.
    """
    if likely < LIKELY:
        return False
    before = "".join(characters[max(0, place - 2) : place])
    after = characters[place + 1] if place + 1 < len(characters) else ""
    if usual == POUR:
        return after in BEHIND_POUR or before[-1:] in BEFORE_POUR
    if usual != ONE:
        return True
    if before.endswith(COUNTED):
        return not after or "\u3400" <= after <= "\u9fff"
    return (before[-1:] in WHICH and after in COUNTERS) or (before[-1:] == TEN and after in ELEVENTH)
