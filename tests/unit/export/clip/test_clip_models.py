"""The five Chinese-CLIP models."""

from __future__ import annotations

import pytest

from immich_triton.export.clip.models import CLIP_MODELS
from immich_triton.immich.clip_names import dimension_of


def test_every_default_name_has_the_size_of_its_model() -> None:
    for model in CLIP_MODELS.values():
        assert dimension_of(model.immich_name) == model.dimension


@pytest.mark.parametrize(
    ("model", "name", "dimension", "size"),
    [
        ("RN50", "RN50__openai", 1024, 224),
        ("ViT-B-16", "ViT-B-16__openai", 512, 224),
        ("ViT-L-14", "ViT-L-14__openai", 768, 224),
        ("ViT-L-14-336", "ViT-L-14-336__openai", 768, 336),
        ("ViT-H-14", "ViT-H-14__laion2b-s32b-b79k", 1024, 224),
    ],
)
def test_the_five_models(model: str, name: str, dimension: int, size: int) -> None:
    spec = CLIP_MODELS[model]
    assert (spec.immich_name, spec.dimension, spec.image_size) == (name, dimension, size)
    assert spec.url.startswith("https://huggingface.co/OFA-Sys/chinese-clip-")
    assert spec.url.endswith(f"/resolve/main/{spec.file}")


def test_each_has_two_encoders_of_its_own() -> None:
    encoders = [name for model in CLIP_MODELS.values() for name in (model.visual, model.textual)]
    assert len(encoders) == len(set(encoders)) == 2 * len(CLIP_MODELS) == 10
    assert CLIP_MODELS["ViT-B-16"].visual == "cn_clip_ViT-B-16_visual"
    assert all(name == model.name for name, model in CLIP_MODELS.items())
