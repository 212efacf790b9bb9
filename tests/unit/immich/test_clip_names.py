"""The CLIP names that Immich's server knows, and the size of their vectors."""

from __future__ import annotations

import pytest

from immich_triton.immich.clip_names import NAMES_BY_DIMENSION, dimension_of, names_of


def test_a_listed_name_has_one_size() -> None:
    names = [name for group in NAMES_BY_DIMENSION.values() for name in group]
    assert len(names) == len(set(names)) == 58
    assert dimension_of("ViT-B-16::openai") == dimension_of("ViT-B-16__openai") == 512
    assert dimension_of("ViT-B-99__openai") is None
    assert names_of(513) == ()


@pytest.mark.parametrize(
    ("name", "dimension"), [("RN50x4__openai", 640), ("some/ViT-H-14__laion2b-s32b-b79k.", 1024), ("", None)]
)
def test_a_name_is_found_however_it_is_spelt(name: str, dimension: int | None) -> None:
    assert dimension_of(name) == dimension


def test_the_names_of_a_size_have_it() -> None:
    for dimension in NAMES_BY_DIMENSION:
        assert names_of(dimension)
        assert {dimension_of(name) for name in names_of(dimension)} == {dimension}
