from pathlib import Path

import pytest
from triton import tiny_models
from triton.config_rules import check_config

from immich_triton.core.paths import MODELS
from immich_triton.export.clip import repository as clip_repository
from immich_triton.export.clip.models import CLIP_MODELS
from immich_triton.export.ocr import models as ocr_models
from immich_triton.export.ocr.models import Placement

PIPELINES = ("ocr", "clip_image", "clip_text", "faces")

GOOD = """# An image in, a vector out.
name: "m"
backend: "onnxruntime"
max_batch_size: 8
dynamic_batching { }
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
parameters { key: "embedded_accelerator" value { string_value: "openvino" } }
optimization { graph { level: 1 } }
"""


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pipeline_is_committed_with_a_config(pipeline: str) -> None:
    assert (MODELS / pipeline / "config.pbtxt").is_file()
    assert (MODELS / pipeline / "1/model.py").is_file()


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/config.pbtxt")), ids=lambda path: path.parent.name)
def test_every_config_in_the_repository_follows_the_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert check_config(text) == []
    assert f'name: "{path.parent.name}"' in text


@pytest.mark.parametrize("gpu", [False, True])
def test_ocr_configs_follow_the_rules(gpu: bool) -> None:
    placement = Placement(instances=1 if gpu else 2, threads=1, gpu=gpu)

    assert check_config(ocr_models.detector_config("PP-OCR", placement, 1000)) == []
    assert check_config(ocr_models.recognizer_config("PP-OCR", placement, 1000)) == []


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", CLIP_MODELS)
def test_clip_configs_follow_the_rules(tmp_path: Path, name: str, gpu: bool) -> None:
    for kind in ("visual", "textual"):
        (tmp_path / "exported" / kind / "1").mkdir(parents=True)
        tiny_models.two_layers(tmp_path / "exported" / kind / "1/model.onnx")
    record = {"precision": "FP32", "weights": {"sha256": "0" * 64}, "fingerprint": 1, "untrained": False}
    models = tmp_path / "models"

    clip_repository.write(models, CLIP_MODELS[name], tmp_path / "exported", ["a"], record, gpu=gpu)

    written = {path.parent.name: check_config(path.read_text()) for path in models.glob("cn_clip_*/config.pbtxt")}
    assert written == {CLIP_MODELS[name].visual: [], CLIP_MODELS[name].textual: []}


def test_face_configs_follow_the_rules(face_models: Path) -> None:
    written = [check_config(path.read_text()) for path in face_models.glob("face_*/config.pbtxt")]

    assert written
    assert not any(written)


def test_a_good_config_has_no_problems() -> None:
    assert check_config(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("# An image in, a vector out.\n", "", "first line must be a comment"),
        ('"onnxruntime"', '"tensorrt"', "backend is 'tensorrt'"),
        ('backend: "onnxruntime"', 'platform: "onnxruntime_onnx"', "field platform"),
        (
            "dynamic_batching { }\ninstance_group [ { kind: KIND_CPU",
            "instance_group [ { kind: KIND_GPU",
            "max_batch_size without dynamic_batching",
        ),
        ("dynamic_batching { }", "dynamic_batching { } response_cache { enable: true }", "field response_cache"),
        ("instance_group [ { kind: KIND_CPU count: 1 } ]\n", "", "instance_group is missing"),
        ("kind: KIND_CPU count: 1", "count: 1", "needs a kind"),
        ("intra_op_thread_count", "intra_op_threads", "intra_op_threads is neither documented"),
        ('"2"', '"two"', "'intra_op_thread_count' must be a whole number"),
        ('string_value: "openvino"', 'string_value: "tensorrt"', "'embedded_accelerator' must be one of openvino"),
        ("graph { level: 1 }", "cuda { graphs: true }", "optimization.cuda"),
        (
            "graph { level: 1 }",
            'execution_accelerators { cpu_execution_accelerator { name: "openvino" } }',
            "use the parameter embedded_accelerator",
        ),
        ("max_batch_size: 8", "max_batch_size: eight", "does not parse"),
        ("max_batch_size: 8", "max_batch: 8", "does not parse"),
    ],
)
def test_each_rule_is_enforced(old: str, new: str, problem: str) -> None:
    assert old in GOOD

    assert problem in "\n".join(check_config(GOOD.replace(old, new)))


ON_GPU = ocr_models.detector_config("PP-OCR", Placement(1, 0, gpu=True), 1000)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("KIND_GPU count: 1", "KIND_GPU count: 2", "one process on each GPU"),
        ('key: "shapes"', 'key: "nice"', "prepares its kernels anew"),
        ("1x736x992x3", "8x736x992x3", "must be max_batch_size"),
        ("1x736x992x3", "1x736x992x1", "does not fit the dims"),
        ('search" value { string_value: "1"', 'search" value { string_value: "2"', "must be 1"),
        ('key: "gpu_mem_limit"', 'key: "intra_op_thread_count"', "gpu_mem_limit is missing"),
    ],
)
def test_rules_of_networks_on_a_gpu(old: str, new: str, problem: str) -> None:
    assert check_config(ON_GPU) == []
    assert old in ON_GPU
    assert problem in "\n".join(check_config(ON_GPU.replace(old, new)))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("max_batch_size: 4 dynamic_batching { }", "needs at least 8"),
        ("max_batch_size: 8 dynamic_batching { }", "state its inputs and outputs"),
        ('parameters { key: "threads" value { string_value: "1" } }', "threads is neither documented"),
    ],
)
def test_rules_of_pipelines(config: str, problem: str) -> None:
    text = f'# A pipeline.\nbackend: "python"\ninstance_group [ {{ kind: KIND_CPU count: 1 }} ]\n{config}\n'

    assert problem in "\n".join(check_config(text))
