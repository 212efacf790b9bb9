"""An exported Chinese-CLIP model as folders of the model repository; real exports: test_export_clip.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from triton.config_rules import check_config

from immich_triton.export.clip.models import CLIP_MODELS
from immich_triton.export.clip.repository import PIPELINES, ClipNameError, check_names, exported_precision, write
from immich_triton.ml.route_file import Route, write_route
from immich_triton.ml.routes import load_routes
from immich_triton.triton.pipelines import Pipeline

MODEL = CLIP_MODELS["ViT-B-16"]
RECORD: dict[str, Any] = {
    "precision": "fp32",
    "fingerprint": 7,
    "weights": {"sha256": "a" * 64},
    "untrained": False,
}


WEIGHTS = np.arange(1024, dtype=np.float32)


def encoder(name: str) -> onnx.GraphProto:
    """Return a graph that is nothing but weights."""
    outputs = [helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [len(WEIGHTS)])]
    return helper.make_graph([], name, [], outputs, [numpy_helper.from_array(WEIGHTS, "w")])


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    for kind in ("visual", "textual"):
        (folder / kind / "1").mkdir(parents=True)
        onnx.save_model(helper.make_model(encoder(kind)), folder / kind / "1/model.onnx")
    (folder / "textual/vocab.txt").write_text("[UNK]")
    return folder


@pytest.mark.parametrize("gpu", [False, True])
def test_two_encoders_two_pipelines_and_a_route(exported: Path, tmp_path: Path, gpu: bool) -> None:
    models = tmp_path / "models"
    write(models, MODEL, exported, [MODEL.immich_name], RECORD, gpu=gpu)
    assert {path.name for path in models.iterdir()} == {MODEL.visual, MODEL.textual, *PIPELINES}
    (route,) = load_routes(models).routes
    assert route.source == models / MODEL.visual / "route.toml"
    assert (route.dimension, route.weights_sha256, route.untrained) == (512, "a" * 64, False)
    for type_, encoder in (("visual", MODEL.visual), ("textual", MODEL.textual)):
        pipeline = route.pipeline(type_)
        assert (pipeline.models, pipeline.parameters, pipeline.fingerprint) == ((encoder,), {"encoder": encoder}, 7)
        config = (models / encoder / "config.pbtxt").read_text()
        assert check_config(config) == []
        assert f"kind: {'KIND_GPU' if gpu else 'KIND_CPU'}" in config
        assert ('key: "nice"' in config) == (type_ == "visual" and not gpu), "a person waits for a query"
        assert json.loads((models / encoder / "export.json").read_text()) == RECORD
        graph = onnx.load(models / encoder / "1/model.onnx").graph
        assert (graph.name, numpy_helper.to_array(graph.initializer[0]).tolist()) == (type_, WEIGHTS.tolist())
        # What an engine maps, and lets go of what it has packed.
        assert (models / encoder / "1/model.onnx.data").read_bytes() == WEIGHTS.tobytes()
    assert (models / MODEL.textual / "vocab.txt").exists()


def test_names_are_cleaned_and_each_counts_once(tmp_path: Path) -> None:
    assert check_names(MODEL, ["ViT-B-16::openai", "ViT-B-16__openai", "RN101__openai"], tmp_path) == [
        "ViT-B-16__openai",
        "RN101__openai",
    ]


@pytest.mark.parametrize(
    ("name", "why"),
    [("ViT-L-14__openai", "Immich expects 768 numbers under that name"), ("mine", "Immich does not know that name")],
)
def test_a_name_of_another_size_is_refused_with_those_that_fit(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ClipNameError, match=rf"(?s)512 numbers, but {why} \({name}\).*ViT-B-32__openai"):
        check_names(MODEL, [name], tmp_path)


def test_a_name_answers_for_one_model(exported: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    write(models, MODEL, exported, ["ViT-B-16__openai"], RECORD)
    assert check_names(MODEL, ["ViT-B-16__openai"], models), "an export may be repeated"
    other = models / "other"
    other.mkdir()
    pipelines = [Pipeline("clip_image", ["visual"], []), Pipeline("clip_text", ["textual"], [])]
    write_route(other, Route("clip", ["RN101::openai"], pipelines, "b" * 64, 512))
    with pytest.raises(ClipNameError, match=f"{other} already answers for RN101__openai"):
        check_names(MODEL, ["RN101__openai"], models)
    (other / "route.toml").write_text("not valid")
    assert check_names(MODEL, ["RN101__openai"], models), "one that is not valid answers nobody"


def test_the_precision_of_an_earlier_export_is_known(exported: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert exported_precision(models, MODEL) is None
    write(models, MODEL, exported, [MODEL.immich_name], {**RECORD, "precision": "fp16"})
    assert exported_precision(models, MODEL) == "fp16"
    (models / MODEL.visual / "export.json").write_text("[]")
    assert exported_precision(models, MODEL) is None
