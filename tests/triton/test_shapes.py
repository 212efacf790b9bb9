"""The shape table, and how a page or a line of text finds its place in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_pipelines import shapes
from immich_pipelines.ocr_batches import WIDTHS, with_longer
from immich_pipelines.ocr_detection import detection_size, on_canvas, placement
from immich_pipelines.shapes import CANVASES, Fit

SIZES = shapes.canvases(shapes.detector_shapes())


def sessions() -> dict[str, int]:
    return {
        "ocr_det": len(shapes.detector_shapes()),
        "ocr_rec": len(shapes.recognizer_shapes()),
        "faces": len(shapes.FACE_DETECTOR) + len(shapes.FACE_RECOGNIZER),
        "clip": len(shapes.CLIP_VISUAL) + len(shapes.CLIP_TEXTUAL),
    }


def test_all_tasks_together_have_room() -> None:
    assert sum(sessions().values()) <= shapes.MOST_SESSIONS


def test_a_page_is_a_multiple_of_what_the_detector_halves() -> None:
    assert all(side % 32 == 0 for size in CANVASES for side in size)


# What Immich's previews and the photos of cameras and telephones measure.
USUAL = [
    *((1440, 1920), (1440, 2160), (1440, 2560), (1440, 1440), (3024, 4032), (4000, 6000), (2160, 3840)),
    *((1440, 3120), (1440, 3200), (1170, 2532), (1080, 2400)),
]


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("page", USUAL)
def test_a_page_of_a_usual_aspect_ratio_fills_its_canvas_with_little_stretch(
    page: tuple[int, int], upright: bool
) -> None:
    height, width = reversed(page) if upright else page
    place = placement(height, width, 736, SIZES)
    assert place is not None
    assert not place.padded
    scale = 736 / min(height, width)
    assert abs(place.page[0] / (height * scale) - 1) <= shapes.MOST_STRETCH
    assert abs(place.page[1] / (width * scale) - 1) <= shapes.MOST_STRETCH


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_a_page_lies_within_its_canvas_and_keeps_its_proportions(height: int, width: int) -> None:
    place = shapes.fit(height, width, SIZES)
    if place is None:
        assert all(height > size[0] * 1.02 or width > size[1] * 1.02 for size in SIZES)
        return
    assert place.canvas in SIZES
    for side, own, canvas in zip(place.page, (height, width), place.canvas, strict=True):
        assert 0 < side <= canvas
        assert abs(side / own - 1) <= shapes.MOST_STRETCH + 1e-9


def test_a_small_page_is_not_enlarged_and_takes_the_smallest_canvas() -> None:
    assert placement(300, 451, 736, SIZES) == Fit((736, 736), (288, 448))


@given(st.integers(32, 4000), st.integers(32, 4000))
def test_a_page_beside_which_its_canvas_is_empty_has_the_size_that_it_has_on_a_cpu(height: int, width: int) -> None:
    place = placement(height, width, 736, SIZES)
    assert place is not None
    assert place.page[0] <= place.canvas[0]
    assert place.page[1] <= place.canvas[1]
    size = detection_size(height, width, 736)
    if place.padded and size is not None and size[0] <= place.canvas[0] and size[1] <= place.canvas[1]:
        assert place.page == size


def test_the_empty_part_of_a_canvas_has_the_colour_of_the_page() -> None:
    page = np.full((640, 700, 3), (250, 200, 30), np.uint8)
    page[100:130, 100:600] = 0  # a line of text does not count
    place = placement(640, 700, 736, SIZES)
    assert place is not None
    assert place.padded
    canvas = on_canvas(page, place)
    assert canvas.shape == (1, *place.canvas, 3)
    height, width = place.page
    for rest in (canvas[0, height:], canvas[0, :, width:]):
        assert (rest == (250, 200, 30)).all()
    alone = on_canvas(page, Fit(place.page, place.page))
    np.testing.assert_array_equal(canvas[:, :height, :width], alone, "the page lies at the top left")


@pytest.mark.parametrize(("page", "resolution"), [((1440, 6000), 736), ((3000, 4000), 2000)])
def test_a_page_larger_than_every_canvas_goes_as_it_does_on_a_cpu(page: tuple[int, int], resolution: int) -> None:
    size = detection_size(*page, resolution)
    assert size is not None
    assert placement(*page, resolution, SIZES) == Fit(size, size)


@given(st.integers(32, 5000), st.integers(32, 5000), st.integers(1, 3000))
def test_without_canvases_nothing_is_different(height: int, width: int, resolution: int) -> None:
    size = detection_size(height, width, resolution)
    assert size is not None
    assert placement(height, width, resolution, ()) == Fit(size, size)


def test_a_page_too_small_for_text_has_no_place() -> None:
    assert placement(31, 2000, 736, SIZES) is None


def test_lines_longer_than_the_table_keep_the_widths_of_a_cpu() -> None:
    widths = with_longer(shapes.widths(shapes.recognizer_shapes()))
    assert widths[: len(shapes.LINES)] == tuple(shapes.LINES)
    assert list(widths) == sorted(set(widths))
    assert widths[-1] == WIDTHS[-1]
    assert with_longer([]) == WIDTHS


@pytest.mark.parametrize(
    "made", [shapes.detector_shapes(), shapes.recognizer_shapes(), shapes.of_batches((1, 8), (3,))]
)
def test_what_is_written_into_a_config_is_read_out_of_it(made: list[shapes.Shape]) -> None:
    for line in (
        'parameters {{ key: "shapes" value {{ string_value: "{}" }} }}',
        'parameters {{ key: "shapes", value: {{ string_value: "{}" }} }}',
    ):
        config = f'name: "a"\n{line.format(shapes.text(made))}\nparameters {{ key: "nice" }}\n'
        assert shapes.in_config(config) == tuple(made)
        assert shapes.in_config("# " + config.replace("\n", "\n# ")) == ()
    assert shapes.in_config('name: "a"\n') == ()


@pytest.mark.parametrize("value", ["", "8", "0x3", "8x3 8x3", "8x3 8x3x4", "8x-1", "8×3"])
def test_a_list_that_means_nothing_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="shape"):
        shapes.parse(value)
