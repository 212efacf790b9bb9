"""The five Chinese-CLIP models: where their weights are, what they take and give, and what Immich may call them.

Runs on Python 3.11 too: the export environment imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

CONTEXT_LENGTH: Final = 52
"""Tokens of one text, padding included: the default of ``cn_clip.clip.tokenize``, the same for all five models."""


@dataclass(frozen=True)
class ClipModel:
    """One model of Chinese-CLIP, as ``cn_clip/clip/utils.py`` and its ``model_configs`` describe it."""

    name: str
    repository: str
    """On the Hugging Face hub, in the organisation OFA-Sys."""
    file: str
    towers: str
    """``<image tower>@<text tower>``, the argument of ``cn_clip.clip.utils.create_model``."""
    image_size: int
    """Side of the square input image in pixels."""
    dimension: int
    """Numbers in an embedding."""
    immich_name: str
    """What it answers to unless ``--as`` says otherwise: the listed name of the same architecture and size."""

    @property
    def url(self) -> str:
        """Where cn_clip 1.6 downloads the weights from."""
        return f"https://huggingface.co/OFA-Sys/{self.repository}/resolve/main/{self.file}"

    @property
    def visual(self) -> str:
        """The name of the image encoder in the Triton model repository."""
        return f"cn_clip_{self.name}_visual"

    @property
    def textual(self) -> str:
        """The name of the text encoder in the Triton model repository."""
        return f"cn_clip_{self.name}_textual"


_BASE: Final = "RoBERTa-wwm-ext-base-chinese"

CLIP_MODELS: Final = MappingProxyType(
    {
        model.name: model
        for model in (
            ClipModel("RN50", "chinese-clip-rn50", "clip_cn_rn50.pt", "RN50@RBT3-chinese", 224, 1024, "RN50__openai"),
            ClipModel(
                "ViT-B-16",
                "chinese-clip-vit-base-patch16",
                "clip_cn_vit-b-16.pt",
                f"ViT-B-16@{_BASE}",
                224,
                512,
                "ViT-B-16__openai",
            ),
            ClipModel(
                "ViT-L-14",
                "chinese-clip-vit-large-patch14",
                "clip_cn_vit-l-14.pt",
                f"ViT-L-14@{_BASE}",
                224,
                768,
                "ViT-L-14__openai",
            ),
            ClipModel(
                "ViT-L-14-336",
                "chinese-clip-vit-large-patch14-336px",
                "clip_cn_vit-l-14-336.pt",
                f"ViT-L-14-336@{_BASE}",
                336,
                768,
                "ViT-L-14-336__openai",
            ),
            ClipModel(
                "ViT-H-14",
                "chinese-clip-vit-huge-patch14",
                "clip_cn_vit-h-14.pt",
                "ViT-H-14@RoBERTa-wwm-ext-large-chinese",
                224,
                1024,
                "ViT-H-14__laion2b-s32b-b79k",
            ),
        )
    }
)
"""By name, smallest first."""
