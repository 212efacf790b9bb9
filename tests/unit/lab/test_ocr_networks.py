"""Networks of an export that sit the exam in this process: as they are, whatever version wrote them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import pytest
from onnxruntime_backend.engines import Array, Engine, OnnxRuntimeEngine, load_engine
from onnxruntime_backend.settings import Settings
from PIL import Image
from tiny_ocr import detector, recognizer

from immich_pipelines.ocr_ctc import OUTPUTS
from immich_triton.export import onnx_graph
from immich_triton.export.ocr import models as ocr_models
from ocr_eval import networks
from ocr_eval.networks import NetworksReader
from ocr_eval.pages import Page
from ocr_eval.texts import Script


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("ocr_det", "ocr_rec"):
        (tmp_path / name / "1").mkdir(parents=True)
    onnx.save(detector(), tmp_path / "detector.onnx")
    model = recognizer()
    onnx_graph.set_metadata(model, "character", "i")
    onnx.save(model, tmp_path / "recognizer.onnx")
    ocr_models.build_detector(tmp_path / "detector.onnx", tmp_path / "ocr_det/1/model.onnx")
    ocr_models.build_recognizer(tmp_path / "recognizer.onnx", None, tmp_path / "ocr_rec/1/model.onnx")
    return tmp_path


@pytest.mark.parametrize("outputs", [OUTPUTS, OUTPUTS[:2]])
def test_an_earlier_export_is_asked_for_what_it_has(
    repository: Path, monkeypatch: pytest.MonkeyPatch, outputs: Sequence[str]
) -> None:
    path = repository / "ocr_rec/1/model.onnx"
    model = onnx.load(path)
    kept = [output for output in model.graph.output if output.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, path)
    asked = []
    run = OnnxRuntimeEngine.run

    def note(engine: OnnxRuntimeEngine, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        asked.append(list(names))
        return run(engine, names, feed)

    monkeypatch.setattr(OnnxRuntimeEngine, "run", note)
    reader = NetworksReader(repository, threads=1)
    image = Image.new("L", (800, 800), "white")
    image.paste("black", (300, 300, 500, 400))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    reading, _ = reader.read(Page("p", Script.ENGLISH, "clean", buffer.getvalue(), *image.size, []))
    assert reading.detected
    assert list(outputs) in asked


@pytest.mark.parametrize(("asked", "computed"), [("bf16", "bf16"), ("f32", "f32")])
def test_a_network_whose_config_asks_for_f32_has_it_where_others_have_bf16(
    repository: Path, monkeypatch: pytest.MonkeyPatch, asked: str, computed: str
) -> None:
    line = 'parameters { key: "inference_precision" value { string_value: "%s" } }\n'
    (repository / "ocr_det/config.pbtxt").write_text(line % "bf16", encoding="utf-8")
    (repository / "ocr_rec/config.pbtxt").write_text(line % asked, encoding="utf-8")
    settings = {}

    def note(path: Path, given: Settings) -> Engine:
        settings[path.parent.parent.name] = given
        return load_engine(path, Settings())

    monkeypatch.setattr(networks, "load_engine", note)
    NetworksReader(repository, threads=1, precision="bf16")
    assert {name: each.inference_precision for name, each in settings.items()} == {
        "ocr_det": "bf16",
        "ocr_rec": computed,
    }
    NetworksReader(repository, threads=1, precision="f32")
    assert {each.inference_precision for each in settings.values()} == {"f32"}
