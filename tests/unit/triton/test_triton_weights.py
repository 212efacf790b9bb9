"""Which fingerprint an export recorded, and how a pipeline is asked for its own; in a gateway: test_weights.py."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from immich_triton.triton import weights
from immich_triton.triton.pipelines import Pipeline

SHA = "a1" * 32


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"fingerprint": 5, "weights": {"sha256": SHA}}, 5),
        ({"fingerprint": 5, "weights": {"sha256": "b2" * 32}}, None),
        ({"fingerprint": True, "weights": {"sha256": SHA}}, None),
        ({"fingerprint": -1, "weights": {"sha256": SHA}}, None),
        ({"fingerprint": 2**63, "weights": {"sha256": SHA}}, None),
        ({"fingerprint": "5", "weights": {"sha256": SHA}}, None),
        ({"fingerprint": 5}, None),
        ([], None),
    ],
)
def test_the_record_of_an_export_counts_for_its_own_weights(tmp_path: Path, record: object, found: int | None) -> None:
    (tmp_path / "see").mkdir()
    (tmp_path / "see/export.json").write_text(json.dumps(record))
    assert weights.recorded(tmp_path, "see", SHA) == found
    assert weights.recorded(tmp_path, "../see", SHA) is None
    assert weights.recorded(tmp_path, None, SHA) is None
    (tmp_path / "see/export.json").write_text("[" * 100_000)
    assert weights.recorded(tmp_path, "see", SHA) is None


def test_nothing_is_recorded_where_nothing_lies(tmp_path: Path) -> None:
    assert weights.recorded(tmp_path, "see", SHA) is None


def test_a_pipeline_is_asked_for_its_weights_with_what_it_takes() -> None:
    image = weights.question(Pipeline("clip_image", ("visual",), ()))
    assert (image.tensor, image.outputs) == ("IMAGE", (weights.OUTPUT,))
    assert Image.open(io.BytesIO(image.payload)).size == (1, 1)
    text = weights.question(Pipeline("clip_text", ("textual",), ()))
    assert (text.tensor, text.payload, text.outputs) == ("TEXT", b"a", (weights.OUTPUT,))


def test_what_is_wrong_comes_with_what_to_do() -> None:
    url = "http://gpu:8000"
    for text in (weights.no_proof("clip_text", url), weights.stale("clip_text", url)):
        assert text.startswith(f"clip_text in Triton at {url} ")
        assert "immich-triton run" in text
