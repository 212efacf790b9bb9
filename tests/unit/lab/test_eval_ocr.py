from __future__ import annotations

import io
import json
from itertools import islice
from pathlib import Path

import eval_ocr
import numpy as np
import pytest
from PIL import Image, ImageDraw

from ocr_eval import fonts, phrases
from ocr_eval.drawing import Line, Quad
from ocr_eval.pages import Condition, Page, exam, pixel_digest, widened
from ocr_eval.readers import RapidReader
from ocr_eval.scoring import Found, Reading, Report, edit_distance, mark_page, normalised
from ocr_eval.texts import Script

needs_fonts = pytest.mark.skipif(
    bool(fonts.missing_packages()),
    reason=f"Debian fonts are not installed: apt-get install {' '.join(fonts.missing_packages())}",
)


def box(left: float, top: float, right: float, bottom: float) -> Quad:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


FIRST = Line("谢谢惠顾", box(100, 100, 300, 140))
SECOND = Line("Thank you", box(100, 160, 400, 200))


def reading(*found: Found) -> Reading:
    return Reading(found, found)


# What is a match


def test_a_looser_box_matches_its_line() -> None:
    marks, extra = mark_page([FIRST], reading(Found(box(90, 91, 310, 149), "谢谢惠顾")))
    assert (marks[0].detected, marks[0].exact, extra) == (True, True, 0)


def test_a_line_in_two_boxes_is_read_from_left_to_right() -> None:
    right, left = Found(box(260, 158, 400, 202), "you"), Found(box(98, 158, 230, 202), "Thank")
    marks, extra = mark_page([SECOND], reading(right, left))
    assert (marks[0].detected, marks[0].read, extra) == (True, "Thank you", 0)


def test_a_column_in_two_boxes_is_read_from_top_to_bottom() -> None:
    column = Line("平安是福", box(500, 100, 560, 400))
    lower, upper = Found(box(500, 250, 560, 400), "是福"), Found(box(500, 100, 560, 240), "平安")
    marks, _ = mark_page([column], reading(lower, upper))
    assert marks[0].exact


def test_a_box_over_two_lines_leaves_one_of_them_missed() -> None:
    marks, _ = mark_page([FIRST, SECOND], reading(Found(box(100, 100, 400, 200), "谢谢惠顾 Thank you")))
    assert [mark.detected for mark in marks].count(True) <= 1
    assert not any(mark.exact for mark in marks)


def test_a_quarter_of_a_line_is_not_a_detection() -> None:
    marks, _ = mark_page([FIRST], reading(Found(box(100, 100, 150, 140), "谢")))
    assert not marks[0].detected
    assert marks[0].edits == 3


def test_a_box_elsewhere_is_extra_and_the_line_missed() -> None:
    marks, extra = mark_page([FIRST], reading(Found(box(900, 900, 1000, 940), "谢谢惠顾")))
    assert (marks[0].detected, marks[0].edits, extra) == (False, 4, 1)


def test_a_line_that_recognition_dropped_is_detected_but_not_read() -> None:
    detected = Found(FIRST.quad)
    marks, _ = mark_page([FIRST], Reading([detected], []))
    assert (marks[0].detected, marks[0].read, marks[0].edits) == (True, "", 4)


def test_a_box_whose_sides_cross_counts_as_the_area_it_spans() -> None:
    crossed = FIRST.quad[[0, 2, 1, 3]]
    marks, _ = mark_page([FIRST], reading(Found(crossed, "谢谢惠顾")))
    assert marks[0].exact


# What is in order


def test_lines_that_change_places_are_not_in_order() -> None:
    first, second, third = (Line(text, box(100, y, 300, y + 40)) for text, y in (("一", 100), ("二", 200), ("三", 300)))
    lines = [first, second, third]
    found = {line.text: Found(line.quad, line.text) for line in lines}
    assert [mark.in_order for mark in mark_page(lines, reading(*found.values()))[0]] == [True] * 3
    swapped = mark_page(lines, reading(found["二"], found["一"], found["三"]))[0]
    assert [mark.in_order for mark in swapped] == [False, False, True]
    # A line that is missing makes none of the others wrong, an extra box neither.
    extra = Found(box(800, 800, 900, 840), "四")
    gap = mark_page(lines, reading(found["一"], extra, found["三"]))[0]
    assert [mark.in_order for mark in gap] == [True, False, True]


def test_pieces_of_two_columns_that_are_read_across_are_not_in_order() -> None:
    right, left = Line("春眠不觉", box(500, 100, 560, 400)), Line("处处闻啼", box(300, 100, 360, 400))
    pieces = [Found(box(x, y, x + 60, y + 140)) for x in (500, 300) for y in (100, 260)]
    assert [mark.in_order for mark in mark_page([right, left], reading(*pieces))[0]] == [True, True]
    across = [pieces[0], pieces[2], pieces[1], pieces[3]]
    assert [mark.in_order for mark in mark_page([right, left], reading(*across))[0]] == [False, False]


# What is equal


@pytest.mark.parametrize(
    ("text", "same"),
    [("￥１２.80", "¥12.80"), ("会议室 Room 101", "会议室Room 101"), ("  a   b ", "a b"), ("注意：地滑", "注意:地滑")],
)
def test_typography_is_no_mistake(text: str, same: str) -> None:
    assert normalised(text) == normalised(same)


@pytest.mark.parametrize(("text", "other"), [("a b", "ab"), ("國", "国"), ("O", "0"), ("12 34", "1234")])
def test_a_mistake_is_a_mistake(text: str, other: str) -> None:
    assert normalised(text) != normalised(other)


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2)],
)
def test_edit_distance(left: str, right: str, distance: int) -> None:
    assert edit_distance(left, right) == distance


def test_the_report_sums_characters_and_not_lines() -> None:
    page = Page("p", Script.MIXED, Condition.CLEAN, b"", 1000, 1000, [FIRST, SECOND])
    report = Report()
    report.add(page, reading(Found(FIRST.quad, "谢谢惠顾"), Found(SECOND.quad, "Thank yu")), 0.5)
    assert report.total.recall == 1
    assert report.total.exact_rate == 0.5
    assert report.total.character_accuracy == pytest.approx(1 - 1 / (4 + 9))
    assert report.categories["mixed"].lines == report.categories["clean"].lines == 2
    assert report.as_dict()["mistakes"] == [{"page": "p", "truth": "Thank you", "read": "Thank yu"}]


# What the pages say


def test_simplified_and_traditional_are_proper() -> None:
    # These character sets hold one orthography each: 國 is not in GB 2312, 国 not in Big5.
    for text in (*phrases.SIMPLIFIED, *phrases.VERTICAL_SIMPLIFIED, *(chinese for chinese, _ in phrases.GOODS)):
        text.encode("gb2312")
    for text in (*phrases.TRADITIONAL, *phrases.VERTICAL_TRADITIONAL):
        text.encode("big5")


def test_no_phrase_comes_twice() -> None:
    for pool in (phrases.SIMPLIFIED, phrases.TRADITIONAL, phrases.ENGLISH):
        assert len(set(pool)) == len(pool) >= 60


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    return list(exam())


@needs_fonts
def test_the_exam_has_every_script_in_every_condition(pages: list[Page]) -> None:
    assert sum(len(page.lines) for page in pages) >= 400
    there = {(page.script, page.condition) for page in pages}
    chinese = {Script.SIMPLIFIED, Script.TRADITIONAL}
    assert there == {
        (script, condition) for script in Script for condition in Condition if condition.basic or script in chinese
    }
    for page in pages:
        image = Image.open(io.BytesIO(page.jpeg))
        assert image.size == (page.width, page.height)
        assert min(image.size) == 1440


@needs_fonts
def test_the_same_pixels_every_time(pages: list[Page]) -> None:
    assert pixel_digest(list(islice(exam(), 5))) == pixel_digest(pages[:5])
    assert pixel_digest(pages[:5]) != pixel_digest(pages[1:6])


@needs_fonts
def test_all_ink_lies_in_the_true_boxes(pages: list[Page]) -> None:
    for page in pages:
        grey = np.asarray(Image.open(io.BytesIO(page.jpeg)).convert("L"), dtype=np.float64)
        mask = Image.new("L", (page.width, page.height))
        for line in page.lines:
            assert line.quad.min() >= 0
            assert (line.quad.max(axis=0) < [page.width, page.height]).all()
            # Blur and JPEG blocks reach a few pixels beyond the ink.
            draw = ImageDraw.Draw(mask)
            corners = [(float(x), float(y)) for x, y in line.quad]
            draw.polygon(corners, fill=255)
            draw.line([*corners, corners[0]], fill=255, width=20)
        paper = grey[np.asarray(mask) == 0]
        # Uneven light moves the paper by up to 18 levels, noise by about 10; ink is at least 36 away.
        assert np.percentile(paper, 99.99) - np.percentile(paper, 0.01) < 60, page.name
        for line in page.lines:
            left, top = line.quad.min(axis=0).astype(int)
            right, bottom = line.quad.max(axis=0).astype(int)
            inside = grey[top:bottom, left:right]
            assert np.percentile(inside, 99) - np.percentile(inside, 1) > 25, (page.name, line.text)


@needs_fonts
@pytest.mark.parametrize("aspect", [1.0, 1.2, 4 / 3, 1.9])
def test_a_widened_page_has_another_shape_and_everything_where_it_was(pages: list[Page], aspect: float) -> None:
    for page in pages[:2]:
        wide = widened(page, aspect)
        short, long = sorted((wide.width, wide.height))
        assert abs(long / short - aspect) < 0.01
        assert (wide.width > wide.height) == (page.width > page.height) or aspect == 1
        assert wide.width >= page.width
        assert wide.height >= page.height
        assert wide.lines == page.lines
        before, after = (np.asarray(Image.open(io.BytesIO(one.jpeg)), np.float64) for one in (page, wide))
        assert after.shape == (wide.height, wide.width, 3)
        assert np.abs(after[: page.height, : page.width] - before).mean() < 4, "compressed once more, and nothing else"


def test_a_character_without_a_glyph_is_noticed() -> None:
    latin = next(face for face in fonts.FACES if face.package == "fonts-liberation")
    assert fonts.absent_characters(latin, "A国") == {"国"}


def test_missing_fonts_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fonts, "FONT_FOLDER", tmp_path)
    assert eval_ocr.main(["--url", "", "--engine"]) == 1
    message = capsys.readouterr().err
    assert "apt-get install" in message
    for package in ("fonts-noto-cjk", "fonts-wqy-microhei", "fonts-liberation"):
        assert package in message


# The whole command


@needs_fonts
def test_rapidocr_reads_a_clean_page(pages: list[Page]) -> None:
    page, report = pages[0], Report()
    answer = RapidReader(threads=2).read(page)
    report.add(page, *answer)
    assert report.total.recall == 1
    assert report.total.character_accuracy > 0.95
    # The same answer marked against another page's truth must fail: the marks depend on the truth.
    other = Report()
    other.add(pages[1], *answer)
    assert other.total.character_accuracy < 0.5


@needs_fonts
def test_pages_can_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_ocr.main(["--url", "", "--pages", "1", "--save", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engines"] == {}
    truth = json.loads((tmp_path / "truth.json").read_text(encoding="utf-8"))
    assert [Path(tmp_path, f"{name}.jpg").is_file() for name in truth] == [True]


@needs_fonts
def test_nobody_at_the_address_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_ocr.main(["--url", "http://127.0.0.1:9", "--pages", "1"]) == 1
    assert "nobody answers at http://127.0.0.1:9" in capsys.readouterr().err
