"""Runs in the export environment: another program, for which cn_clip's models have few and narrow layers.

``clip_small.py PROGRAM ARGUMENT...``, where PROGRAM is a module or a file. The models are cn_clip's own classes, and
all that exports them and compares them is the real thing: only the minutes of arithmetic are missing.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any, Final

import cn_clip.clip.model
import cn_clip.clip.utils

TEXT: Final[dict[str, Any]] = {
    "vocab_size": 21128,
    "text_attention_probs_dropout_prob": 0.1,
    "text_hidden_act": "gelu",
    "text_hidden_dropout_prob": 0.1,
    "text_hidden_size": 64,
    "text_initializer_range": 0.02,
    "text_intermediate_size": 128,
    "text_max_position_embeddings": 512,
    "text_num_attention_heads": 4,
    "text_num_hidden_layers": 2,
    "text_type_vocab_size": 2,
}
IMAGE: Final[dict[str, dict[str, Any]]] = {
    "RN50": {"embed_dim": 1024, "vision_layers": (1, 1, 1, 1), "vision_width": 32, "vision_patch_size": None},
    "ViT-B-16": {"embed_dim": 512, "vision_layers": 2, "vision_width": 128, "vision_patch_size": 16},
}


def small_model(towers: str, checkpoint: dict[str, Any] | None = None) -> Any:
    """Do what cn_clip's ``create_model`` does, with few layers."""
    model = cn_clip.clip.model.CLIP(image_resolution=224, **IMAGE[towers.split("@")[0]], **TEXT)
    cn_clip.clip.model.convert_weights(model)
    if checkpoint:
        model.load_state_dict(checkpoint["state_dict"])
    return model


def main() -> None:
    """Run the program."""
    # A function of cn_clip, not of ours.
    setattr(cn_clip.clip.utils, "create_model", small_model)  # noqa: B010 - type checkers see no such attribute
    program = sys.argv[1]
    sys.argv = sys.argv[1:]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
