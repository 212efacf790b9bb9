"""The form in which Immich's model names are compared."""

from __future__ import annotations

import pytest

from immich_triton.immich.model_names import clean_name


def test_cleans_model_names_like_stock() -> None:
    assert clean_name("ViT-B-16::openai") == clean_name("ViT-B-16__openai") == "ViT-B-16__openai"
    assert clean_name("immich-app/ViT-B-32__openai") == "ViT-B-32__openai"
    assert clean_name("a/b\\..c:d.") == "b_c_d"


@pytest.mark.parametrize("name", ["", "/", "a/.", "..", ":/\\"])
def test_a_clean_name_is_clean_however_odd_it_was(name: str) -> None:
    cleaned = clean_name(name)
    assert clean_name(cleaned) == cleaned
    assert not set(cleaned) & set(":\\/.")
