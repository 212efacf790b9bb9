"""Runs in the export environment: whether ONNX models, our transform and our tokenizer equal the original."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cn_clip.clip
import numpy as np
import numpy.typing as npt
import torch

from immich_pipelines.clip_tokenizer import Tokenizer
from immich_pipelines.clip_transform import image_transform
from immich_triton.export.clip import samples as clip_samples

FloatArray = npt.NDArray[np.float32]

LIMITS: Final = {"fp32": 0.9999, "fp16": 0.999}
"""Lowest cosine that any single embedding may have with the original's."""
TENSOR_LIMIT: Final = 1e-5
"""Largest difference of any element between our transformed image and the original's."""
BATCHES: Final = (1, 8)


@dataclass(frozen=True)
class Reference:
    """What cn_clip in PyTorch makes of the samples: its inputs, and its embeddings in float32, normalised."""

    images: FloatArray
    image_embeddings: FloatArray
    tokens: npt.NDArray[np.int64]
    text_embeddings: FloatArray


def reference(model: Any, image_size: int) -> Reference:
    """Run *model* (cn_clip's, float32, evaluation mode) on the samples."""
    transform = cn_clip.clip.image_transform(image_size)
    images = torch.stack([transform(image) for image in clip_samples.images()])
    tokens = cn_clip.clip.tokenize(clip_samples.texts())
    with torch.no_grad():
        # Small batches: the large models on 40 GB of activations would not fit anywhere.
        image_embeddings = torch.cat([model.encode_image(part) for part in images.split(4)])
        text_embeddings = torch.cat([model.encode_text(part) for part in tokens.split(8)])
    return Reference(
        images.numpy(), _normalised(image_embeddings.numpy()), tokens.numpy(), _normalised(text_embeddings.numpy())
    )


def measure(expected: Reference, folder: Path, image_size: int, precision: str) -> dict[str, Any]:
    """Compare ``folder/{visual,textual}`` with *expected* and return the rows of the table, JSON-ready."""
    rows = [
        _compare("image", folder / "visual/1/model.onnx", "IMAGE", expected.images, expected.image_embeddings, batch)
        for batch in BATCHES
    ] + [
        _compare("text", folder / "textual/1/model.onnx", "TOKENS", expected.tokens, expected.text_embeddings, batch)
        for batch in BATCHES
    ]
    transformed = np.stack([image_transform(image, image_size) for image in clip_samples.images()])
    tokenizer = Tokenizer(folder / "textual/vocab.txt")
    tokens = np.stack([tokenizer.encode(text) for text in clip_samples.texts()])
    tensor_difference = float(np.abs(transformed - expected.images).max())
    different_tokens = int((tokens != expected.tokens).any(axis=1).sum())
    limit = LIMITS[precision]
    return {
        "limit": limit,
        "rows": rows,
        "transform_max_difference": tensor_difference,
        "transform_limit": TENSOR_LIMIT,
        "texts_with_other_tokens": different_tokens,
        "passed": all(row["lowest_cosine"] >= limit for row in rows)
        and tensor_difference <= TENSOR_LIMIT
        and not different_tokens,
    }


def _compare(
    kind: str, path: Path, name: str, inputs: npt.NDArray[Any], expected: FloatArray, batch: int
) -> dict[str, Any]:
    # By name: type checkers find the backend's folder of that name instead.
    session = importlib.import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [inputs[start : start + batch] for start in range(0, len(inputs), batch)]
    embeddings = np.concatenate([session.run(["EMBEDDING"], {name: part})[0] for part in parts])
    lengths = np.linalg.norm(embeddings, axis=1)
    products = (embeddings * expected).sum(axis=1, dtype=np.float64)
    # NaN is no number above the limit: it fails.
    cosines = np.nan_to_num(products / lengths / np.linalg.norm(expected, axis=1), nan=-1.0)
    return {
        "kind": kind,
        "batch": batch,
        "items": len(inputs),
        "lowest_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "max_difference": float(np.nan_to_num(np.abs(embeddings - expected), nan=9.0).max()),
        "largest_length_error": float(np.nan_to_num(np.abs(lengths - 1), nan=9.0).max()),
    }


def _normalised(vectors: FloatArray) -> FloatArray:
    result: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result
