"""The table of simplified and traditional characters."""

from __future__ import annotations

import chinese_variants as program
import pytest

from immich_pipelines.ocr_variants import MOST
from immich_triton.export.ocr import chinese_variants


def test_the_table_is_what_opencc_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--check"]) == 0
    monkeypatch.setattr(program, "table", lambda: "广廣\n")
    assert program.main(["--check"]) == 1
    assert "run .venv/bin/python scripts/lab/chinese_variants.py" in capsys.readouterr().err


def test_it_says_where_it_is_from_and_under_which_licence() -> None:
    head = chinese_variants.TABLE.read_text(encoding="utf-8").split("\n万", 1)[0]
    assert "OpenCC" in head
    assert "Apache License 2.0" in head


def test_a_character_has_its_variants_in_opencc_s_order() -> None:
    rows = {row[0]: row[1:] for row in chinese_variants.rows()}
    assert rows["广"] == "廣"
    assert rows["发"] == "發髮"
    assert rows["台"][:3] == "臺檯颱"
    assert rows["为"] == "為"
    assert rows["注"][0] == "注"
    assert len(rows) > 2000


def test_what_a_dictionary_lacks_is_left_out() -> None:
    assert chinese_variants.of_one_script("发發广国a 台") == (["发發"], ["發发"])


def test_what_both_scripts_have_has_no_variants() -> None:
    simplified, traditional = chinese_variants.of_one_script("发發髮余餘注註台臺")
    assert simplified == ["发發髮"]
    assert sorted(traditional) == sorted(["發发", "髮发", "餘余", "註注", "臺台"])


def test_no_character_has_more_variants_than_are_looked_at() -> None:
    simplified, traditional = chinese_variants.of_one_script("".join(chinese_variants.rows()))
    assert len(simplified) > 2000
    assert max(map(len, simplified + traditional)) == 1 + MOST
    assert not {row[0] for row in simplified} & {row[0] for row in traditional}


def test_what_is_written_in_both_scripts_counts_for_neither() -> None:
    # OpenCC has rows of 糖 for 醣, 和 for 龢, 秘 for 祕, and of 坐 for 座: the first three are in traditional texts,
    # too, the last in simplified ones.
    simplified, traditional = chinese_variants.of_one_script("".join(chinese_variants.rows()) + "座薰待")
    assert not {row[0] for row in (*simplified, *traditional)} & set("糖和管同欣沉旗渺污泄拼秘痴座坐待薰乃")
    assert {"糖", "龢"} & {row[0] for row in traditional} == {"龢"}
