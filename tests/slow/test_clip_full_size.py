"""Two Chinese-CLIP models of their full size, exported by the program and served by the real Triton.

What the small ones of ``clip_standins`` show for every change is shown here for the models that people export.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import clip_standins
import numpy as np
import pytest
from clip_client import ClipClient
from clip_standins import LIMIT, MODELS, TEXTS, ClipStandins, centred_cosines, run_in_export_environment
from embedded_triton import StartTriton

from immich_triton.export.clip.models import CLIP_MODELS

# An export takes minutes on two cores, and so may the environment that it needs.
pytestmark = [pytest.mark.timeout(2400), pytest.mark.xdist_group("triton")]


@pytest.fixture(scope="module")
def full() -> ClipStandins:
    return clip_standins.build(small=False)


@pytest.fixture(scope="module")
def clip(triton_server: StartTriton, full: ClipStandins) -> Iterator[ClipClient]:
    with triton_server(full.models) as server:
        yield ClipClient(server)


@pytest.mark.parametrize("model", MODELS)
def test_the_export_passed_its_proof(model: str, full: ClipStandins) -> None:
    spec = CLIP_MODELS[model]
    for name in (spec.visual, spec.textual):
        assert json.loads((full.models / name / "export.json").read_text())["parity"]["passed"]
    size = sum(path.stat().st_size for path in (full.models / spec.visual / "1").iterdir())
    assert size > 100_000_000


@pytest.mark.parametrize("model", MODELS)
def test_images_get_the_originals_embeddings(model: str, clip: ClipClient, full: ClipStandins) -> None:
    files = [path.read_bytes() for path in full.images]
    embeddings = clip.images(files, CLIP_MODELS[model].visual, 8)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert centred_cosines(embeddings, full.expected(model, "image")).min() >= LIMIT
    for mistake in ("bgr", "flipped", "bilinear"):
        assert centred_cosines(embeddings, full.expected(model, f"image {mistake}")).min() < LIMIT


@pytest.mark.parametrize("model", MODELS)
def test_texts_get_the_originals_embeddings(model: str, clip: ClipClient, full: ClipStandins) -> None:
    embeddings = clip.texts(TEXTS, CLIP_MODELS[model].textual)
    assert centred_cosines(embeddings, full.expected(model, "text")).min() >= LIMIT
    assert centred_cosines(embeddings, full.expected(model, "text changed")).min() < LIMIT


def test_tokens_equal_cn_clips_on_generated_strings() -> None:
    script = Path(__file__).resolve().parents[1] / "clip_tokens.py"
    result = json.loads(run_in_export_environment(script, "100000", "2"))
    assert result == {"count": 100_000, "different": []}
