"""``eval_search.py``: the set, the marks by hand, and the whole comparison on a real PostgreSQL."""

from __future__ import annotations

import json

import eval_search
import pytest

from search_eval import postgres
from search_eval.immich_tables import searched, tokens
from search_eval.photos import PHOTOS, photos
from search_eval.queries import QUERIES, recall, reciprocal_rank


def test_the_set_is_the_same_every_time_and_every_query_has_an_answer() -> None:
    known = photos()
    assert known == photos()
    assert len(known) == len({photo.age for photo in known}) == PHOTOS == 200
    assert len({query.text for query in QUERIES}) == len(QUERIES) == 60
    assert all(query.right(known) for query in QUERIES)
    assert sum(photo.lost for photo in known) == 10
    # A few are wrong for everybody to find: read wrongly, with a gap, in full width.
    assert any("鸿" in line or "T" in line for photo in known for line in photo.lines if photo.kind == "menu")


def test_recall_and_reciprocal_rank_by_hand() -> None:
    assert recall([7, 1, 2], {1, 2, 3, 4}) == 0.5
    assert recall([*range(20)], set(range(5, 25))) == 0.5  # 5 to 9 stand in the first ten, of ten that could
    assert recall([], {1}) == 0
    assert reciprocal_rank([7, 1, 2], {1, 2}) == 0.5
    assert reciprocal_rank([7], {1}) == 0


def test_text_is_cut_as_immich_does() -> None:
    # Recorded from 2.7.5 and 3.1.0.
    assert searched(["月臺 4A 往 高雄 Kaohsiung", "38元", "合计 ¥76.90"]) == (
        "月臺 4A 往 高雄 Kaohsiung 38 元 合计 ¥76.90"
    )
    assert searched(["尊敬的业主：因管道检修"]) == "尊敬 敬的 的业 业主 ： 因管 管道 道检 检修"
    assert tokens("请勿吸烟 No Smoking") == ["请勿", "勿吸", "吸烟", "No", "Smoking"]


def test_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    if postgres.programs() is None:
        pytest.skip(postgres.MISSING)
    assert eval_search.main(["--json"]) == 0
    marks = json.loads(capsys.readouterr().out)
    stock, plain, database = (marks[name] for name in ("stock Immich", "ours, no database", "ours, database"))
    assert stock["one character"] == [0, 0]  # as measured on both versions
    for group in stock:
        assert database[group][0] >= plain[group][0] >= stock[group][0], group
        assert plain[group][1] >= stock[group][1], group
    assert database["all"][0] > 0.95 > plain["all"][0] > stock["all"][0] + 0.1
    assert database["all"][1] > 0.95 > plain["all"][1] > stock["all"][1] + 0.1
    if "ours, zhparser" in marks:
        assert marks["ours, zhparser"]["all"][0] > 0.95


def test_without_postgresql_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(postgres, "programs", lambda: None)
    assert eval_search.main([]) == 1
    assert "apt-get install postgresql" in capsys.readouterr().err
