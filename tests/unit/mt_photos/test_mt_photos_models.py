"""Which routed model answers MT-Photos: never one of several by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_triton.ml.route_file import Route, RouteError
from immich_triton.ml.routes import RouteTable
from immich_triton.mt_photos.models import NoModelError, check, choose, chosen, describe
from immich_triton.mt_photos.settings import Settings
from immich_triton.triton.pipelines import Pipeline


def clip(model: str, name: str) -> Route:
    pipelines = [
        Pipeline("clip_image", ["visual"], [f"{model}_visual"]),
        Pipeline("clip_text", ["textual"], [f"{model}_textual"]),
    ]
    return Route("clip", [name], pipelines, "a" * 64, 512, source=Path(f"models/{model}_visual/route.toml"))


def other(task: str, name: str, folder: str) -> Route:
    pipelines = [Pipeline(task, ["detection", "recognition"], [folder])]
    return Route(task, [name], pipelines, "b" * 64, source=Path(f"models/{folder}/route.toml"))


SMALL, LARGE = clip("small", "ViT-B-16__openai"), clip("large", "ViT-L-14__openai")
FACES, MORE_FACES = (
    other("facial-recognition", "buffalo_l", "face_rec_l"),
    other("facial-recognition", "buffalo_s", "face_rec_s"),
)
V4, V5 = other("ocr", "PP-OCRv4", "ocr_v4"), other("ocr", "PP-OCRv5", "ocr_v5")


def test_the_only_one_needs_no_name() -> None:
    assert choose(RouteTable((SMALL, FACES)), "clip", "") is SMALL


@pytest.mark.parametrize("wanted", ["large_visual", "large_textual", "ViT-L-14__openai", "models/ViT-L-14__openai"])
def test_of_several_the_one_that_is_named_by_its_folder_or_as_in_immich(wanted: str) -> None:
    assert choose(RouteTable((SMALL, LARGE)), "clip", wanted) is LARGE


def test_several_without_a_name_are_refused_with_the_names_to_choose_from() -> None:
    with pytest.raises(RouteError, match="set mt_photos_clip to one of small_visual, large_visual"):
        choose(RouteTable((SMALL, LARGE)), "clip", "")
    with pytest.raises(RouteError, match="set mt_photos_faces to one of face_rec_l, face_rec_s"):
        check(RouteTable((SMALL, FACES, MORE_FACES)), Settings())


def test_a_name_that_nothing_has_is_refused() -> None:
    with pytest.raises(RouteError, match="mt_photos_clip is huge, which no route has; set it to one of small_visual"):
        choose(RouteTable((SMALL,)), "clip", "huge")
    with pytest.raises(RouteError, match="mt_photos_clip is small_visual, but no model is routed for clip; run immich"):
        check(RouteTable((FACES,)), Settings(clip="small_visual"))


def test_ocr_makes_no_vectors_so_the_first_will_do() -> None:
    assert choose(RouteTable((V4, V5)), "ocr", "") is V4


def test_what_is_missing_is_no_error_at_the_start_but_has_its_remedy() -> None:
    table = RouteTable((V5,))
    check(table, Settings())
    with pytest.raises(NoModelError, match="no model is routed for facial-recognition; make one: immich-triton export"):
        chosen(table, "facial-recognition", Settings())
    assert [*describe(table, Settings())] == ["ocr by ocr_v5"]
