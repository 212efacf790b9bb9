"""Pages with defects and scenes: always the same pixels, lines where they are drawn, marks for what is mixed up."""

from __future__ import annotations

import io

import eval_ocr
import numpy as np
import pytest
from PIL import Image
from unit.lab.test_eval_ocr import needs_fonts

from ocr_eval import scenes as ocr_scenes
from ocr_eval.defects import NAMES, Defect, in_scenes, spoiled
from ocr_eval.drawing import Line
from ocr_eval.pages import Page, exam, pixel_digest
from ocr_eval.scenes import Scene, scenes
from ocr_eval.scoring import Found, Reading, Report, mix_ups
from ocr_eval.texts import Script


def pixels(page: Page) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(Image.open(io.BytesIO(page.jpeg)).convert("L"), np.float64)


@pytest.fixture(scope="module")
def clean() -> Page:
    return next(exam())


@needs_fonts
@pytest.mark.parametrize("defect", Defect)
def test_a_defect_changes_the_page_and_nothing_else(clean: Page, defect: Defect) -> None:
    (page,) = spoiled([clean], [defect])
    assert [line.text for line in page.lines] == [line.text for line in clean.lines]
    assert (page.width, page.height, page.condition) == (clean.width, clean.height, defect)
    assert pixels(page).shape == pixels(clean).shape
    assert np.abs(pixels(page) - pixels(clean)).mean() > 1
    assert pixel_digest([page]) == pixel_digest(list(spoiled([clean], [defect])))


@needs_fonts
def test_lines_move_with_the_perspective(clean: Page) -> None:
    (page,) = spoiled([clean], [Defect.PERSPECTIVE])
    grey = pixels(page)
    for line, before in zip(page.lines, clean.lines, strict=True):
        assert np.abs(line.quad - before.quad).max() > 3
        left, top = line.quad.min(axis=0).astype(int)
        right, bottom = line.quad.max(axis=0).astype(int)
        inside = grey[top:bottom, left:right]
        assert np.percentile(inside, 99) - np.percentile(inside, 1) > 60, line.text


@needs_fonts
def test_scenes_are_in_one_script_or_in_both_on_purpose() -> None:
    pages = list(scenes())
    texts = {scene: [line.text for page in pages if page.script == scene for line in page.lines] for scene in Scene}
    assert texts[Scene.SIMPLIFIED] == [line for place in ocr_scenes.PLACES for line, _ in place]
    assert texts[Scene.TRADITIONAL] == [line for place in ocr_scenes.PLACES for _, line in place]
    both = set(texts[Scene.SIMPLIFIED]) | set(texts[Scene.TRADITIONAL])
    for scene in (Scene.BOTH, Scene.QUOTED):
        assert set(texts[scene]) == both
    assert set(texts[Scene.ALONE]) < both
    for page in (page for page in pages if page.script in {Scene.BOTH, Scene.QUOTED, Scene.ALONE}):
        said = {line.text for line in page.lines}
        assert said & set(texts[Scene.SIMPLIFIED]) - set(texts[Scene.TRADITIONAL])
        assert said & set(texts[Scene.TRADITIONAL]) - set(texts[Scene.SIMPLIFIED])


@needs_fonts
def test_noise_on_scenes_is_a_category_of_its_own() -> None:
    scene = next(scenes())
    (page,) = spoiled([scene], [Defect.UNIFORM_8])
    assert (page.script, page.condition) == (Scene.SIMPLIFIED, in_scenes(Defect.UNIFORM_8))


@pytest.mark.parametrize(
    ("wanted", "got", "count"),
    [
        ("人民广场", "人民廣場", 2),
        ("月臺", "月台", 1),
        ("请勿吸烟", "请勿吸煙", 1),
        ("头发", "头髮", 1),
        ("开往机场", "开住机场", 0),
        ("天后宫", "天后宫", 0),
        ("减速慢行", "減慢行", 0),
        ("Exit B", "Exit8", 0),
    ],
)
def test_mix_ups_are_counted(wanted: str, got: str, count: int) -> None:
    assert mix_ups(wanted, got) == count


def test_a_report_tells_spaces_and_mix_ups_apart_from_other_mistakes() -> None:
    quads = [np.array([[0, y], [300, y], [300, y + 40], [0, y + 40]], np.float64) for y in (0, 100, 200)]
    lines = [Line(text, quad) for text, quad in zip(("减速慢行", "Exit B 2", "Room 302"), quads, strict=True)]
    found = [Found(quad, text) for text, quad in zip(("減速慢行", "Exit B2", "Room 302"), quads, strict=True)]
    report = Report()
    page = Page("p", Scene.BOTH, Scene.BOTH, b"", 400, 300, lines)
    report.add(page, Reading(found, found), 0.1)
    assert (report.total.exact, report.total.unspaced, report.total.mix_ups) == (1, 2, 1)
    # A scene as it is drawn counts once in its one category.
    assert report.categories[Scene.BOTH].lines == 3
    assert report.as_dict()["categories"][Scene.BOTH]["variant_mix_ups"] == 1


@needs_fonts
def test_pages_are_chosen_on_the_command_line() -> None:
    def asked(*arguments: str) -> list[Page]:
        pages = eval_ocr.chosen(eval_ocr.parser().parse_args(arguments))
        return [page for _, page in zip(range(2), pages, strict=False)]

    assert [page.condition for page in asked()] == ["clean", "rotated ±5°"]
    assert [page.condition for page in asked("--defects", "motion", "low-light")] == ["motion 7 px", "low light"]
    assert [page.condition for page in asked("--defects")] == list(NAMES.values())[:2]
    assert {page.script for page in asked("--scenes")} == {Scene.SIMPLIFIED}
    assert {page.script for page in asked("--defects", "twice", "--scenes")} == {Script.SIMPLIFIED}
