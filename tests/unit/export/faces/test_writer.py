"""Both models of a pack, their route and the pipeline, written as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_faces
from triton.config_rules import check_config

from immich_triton.export.faces import check, writer
from immich_triton.export.faces.check import CheckError
from immich_triton.export.repository import sha256
from immich_triton.ml.routes import load_routes

DETECTOR, RECOGNIZER = "face_det_mini", "face_rec_mini"


@pytest.fixture(autouse=True)
def small_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_images", tiny_faces.photos)


@pytest.mark.parametrize(("gpu", "kind", "detectors"), [(False, "KIND_CPU", 2), (True, "KIND_GPU", 1)])
def test_a_pack_is_a_route_with_two_models(tmp_path: Path, gpu: bool, kind: str, detectors: int) -> None:
    originals, models = tiny_faces.save(tmp_path), tmp_path / "models"
    differences = writer.export("mini", *originals, models, ["buffalo_l"], {"source": "made here"}, gpu=gpu)
    assert sorted(path.name for path in models.iterdir()) == [DETECTOR, RECOGNIZER, "faces"]
    (route,) = load_routes(models).routes
    assert (route.task, list(route.names), route.dimension) == ("facial-recognition", ["buffalo_l"], 512)
    assert route.weights_sha256 == sha256(*originals)
    (pipeline,) = route.pipelines
    assert pipeline.all_models == ("faces", DETECTOR, RECOGNIZER)
    assert pipeline.parameters == {"detector": DETECTOR, "recognizer": RECOGNIZER}
    for name, count, original in ((DETECTOR, detectors, originals[0]), (RECOGNIZER, 1, originals[1])):
        assert (models / name / "1/model.onnx").is_file()
        config = (models / name / "config.pbtxt").read_text()
        assert check_config(config) == []
        assert f"count: {count}, kind: {kind}" in config
        assert ("largest_run" in config) == (name == DETECTOR and not gpu), "buffers of one image, not of a batch"
        record = json.loads((models / name / "export.json").read_text())
        assert (record["pack"], record["source"], record["file"]) == ("mini", "made here", original.name)
        assert record["file_sha256"] == sha256(original)
        assert record["largest_differences"] == differences.as_dict()


def test_what_cannot_be_vouched_for_is_not_written(tmp_path: Path) -> None:
    blind = tiny_faces.save(tmp_path, faces=False)
    with pytest.raises(CheckError):
        writer.export("mini", *blind, tmp_path / "models", ["buffalo_l"], {})
    assert list((tmp_path / "models").iterdir()) == []
