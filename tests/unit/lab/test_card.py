"""The parts of ``scripts/lab/gpu.py`` that need no card and no server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import gpu
import pytest
from google.protobuf import text_format
from triton import tiny_models
from triton.config_rules import check_config
from tritonclient.grpc import model_config_pb2

from benchmarks import card
from benchmarks.samples import Sample
from immich_pipelines import shapes
from immich_triton.export.ocr import models as ocr_models

ON_GPU = ocr_models.detector_config("PP-OCR", ocr_models.Placement(1, 0, gpu=True), 1000)


def test_a_few_shapes_stand_for_all() -> None:
    chosen = card.some(shapes.detector_shapes())
    assert len(chosen) == card.SHOWN
    assert chosen[0] == (1, 736, 736, 3)
    assert chosen[-1] == (1, 1600, 736, 3)
    assert card.some([(8, 3), (1, 3)]) == [(1, 3), (8, 3)]
    assert card.some([]) == []


def network(folder: Path, dims: str, more: str = "") -> Path:
    (folder / "1").mkdir(parents=True)
    tiny_models.convolution(folder / "1/model.onnx")
    (folder / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 4\n'
        f'input [ {{ name: "x" data_type: TYPE_FP32 dims: {dims} }} ]\n{more}'
    )
    return folder


def test_a_network_alone_is_measured_in_its_shapes(tmp_path: Path) -> None:
    stated = 'parameters { key: "shapes" value { string_value: "1x3x8x8 4x3x8x8" } }\n'
    times = card.network_times(network(tmp_path / "a", "[ 3, -1, -1 ]", stated), gpu=False, runs=2)
    assert list(times) == ["1x3x8x8", "4x3x8x8"]
    assert all(value > 0 for value in times.values())


@pytest.mark.parametrize(
    ("dims", "shape"), [([3, -1, -1], (1, 3, 736, 992)), ([3, 48, -1], (1, 3, 48, 320)), ([52], (1, 52))]
)
def test_a_network_without_shapes_is_run_in_a_usual_one(dims: list[int], shape: tuple[int, ...]) -> None:
    assert card._fallback({"input": [{"dims": [str(size) for size in dims]}]}) == shape


def test_the_copy_for_the_cpu_has_the_same_weights_and_no_gpu(tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "ocr_det/1").mkdir(parents=True)
    (models / "ocr_det/1/model.onnx").write_text("weights")
    (models / "ocr_det/config.pbtxt").write_text(ON_GPU)
    (models / ".new").mkdir()
    card.on_cpu(models, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["ocr_det"]
    assert (tmp_path / "copy/ocr_det/1/model.onnx").resolve() == models / "ocr_det/1/model.onnx"
    config = (tmp_path / "copy/ocr_det/config.pbtxt").read_text()
    assert check_config(config) == []
    assert not text_format.Parse(config, model_config_pb2.ModelConfig()).parameters
    assert "KIND_CPU" in config
    assert "KIND_GPU" not in config
    assert (models / "ocr_det/config.pbtxt").read_text() == ON_GPU


def face(x: int, *vector: float) -> dict[str, Any]:
    return {"boundingBox": {"x1": x, "y1": 0}, "embedding": json.dumps(vector)}


@pytest.mark.parametrize(
    ("task", "ours", "reference", "said"),
    [
        ("ocr", [{"ocr": {"text": ["a", "b"]}}], [{"ocr": {"text": ["b", "c", "a"]}}], "2 of 3 lines identical"),
        ("clip", [{"clip": "[1, 0]"}], [{"clip": "[2, 0]"}], "1 vectors, lowest cosine 1.000000"),
        (
            "faces",
            [{"facial-recognition": [face(9, 0, 1), face(1, 1, 0)]}],
            [{"facial-recognition": [face(1, 1, 0), face(9, 0, 1)]}],
            "2 vectors, lowest cosine 1.000000",
        ),
        ("faces", [{"facial-recognition": []}], [{"facial-recognition": [face(1, 1)]}], "0 vectors, the CPU gives 1"),
        ("faces", [{"facial-recognition": []}], [{"facial-recognition": []}], "no vectors"),
    ],
)
def test_answers_are_compared(task: str, ours: list[Any], reference: list[Any], said: str) -> None:
    assert card.compare(task, ours, reference) == said


class Bell:
    """A service of the simplest kind."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, sample: Sample) -> None:
        self.asked.append(sample.name)
        await asyncio.sleep(0)


async def test_a_rate_is_measured_in_the_time_there_is() -> None:
    bell: Any = Bell()
    per_second, median, answered = await card.rate(bell, [Sample("a"), Sample("b")], 3, 0.0)
    assert 1 <= len(bell.asked) <= 6
    assert per_second > 0
    assert answered == len(bell.asked)
    assert median >= 0
    first, warm = await card.first_and_warm(bell, [Sample("a"), Sample("b")])
    assert bell.asked[-4:] == ["a", "b", "a", "b"]
    assert min(first, warm) >= 0


def test_without_a_card_it_says_so_and_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gpu: there is no NVIDIA driver here (nvidia-smi was not found): install")
    assert said.endswith("or try --device cpu\n")
    assert said.count("\n") == 1


def test_a_repository_without_a_route_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--models", str(tmp_path)]) == 1
    assert f"{tmp_path} routes no task; make models with" in capsys.readouterr().err
