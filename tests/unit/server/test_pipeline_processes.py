"""Pipelines beside a GPU get processes by the CPUs there are, within the bounds of their configs and of the memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from immich_triton.core.paths import MODELS
from immich_triton.server import pipeline_processes

PLENTY = 100_000


def count(model: str, cpus: int, free_mib: int = PLENTY, models: Path = MODELS) -> int | None:
    config = pipeline_processes.configs(models, free_mib, cpus)(model)
    return None if config is None else int(json.loads(config)["instance_group"][0]["count"])


@pytest.mark.parametrize(
    ("model", "cpus", "processes"),
    [
        *(("ocr", 2, None), ("ocr", 5, None), ("ocr", 8, 4), ("ocr", 16, 8), ("ocr", 128, 8)),
        *(("faces", 4, None), ("faces", 16, 8), ("clip_image", 2, None), ("clip_image", 16, 8)),
        ("clip_text", 128, None),
    ],
)
def test_one_for_two_cpus_within_bounds(model: str, cpus: int, processes: int | None) -> None:
    assert count(model, cpus) == processes


def test_no_more_than_there_is_shared_memory_for() -> None:
    each = pipeline_processes.SHARED_MEMORY_MIB
    assert [count("ocr", 16, free) for free in (0, each - 1, each, 3 * each, PLENTY)] == [None, None, 3, 5, 8]


def test_nothing_but_the_count_is_different() -> None:
    text = pipeline_processes.configs(MODELS, PLENTY, 16)("ocr")
    assert text is not None
    changed = json_format.Parse(text, model_config_pb2.ModelConfig())
    shipped = text_format.Parse((MODELS / "ocr/config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    changed.instance_group[0].count = shipped.instance_group[0].count
    assert changed == shipped


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"most_processes"', '"decode_seconds_"'),
        ('string_value: "8"', 'string_value: "many"'),
        ("count: 2", "count: 12"),
        ("instance_group [", "instance_group [ { kind: KIND_CPU count: 1 },"),
        ('backend: "python"', 'backend: "onnxruntime"'),
        ('name: "ocr"', "name: {"),
    ],
)
def test_a_config_of_somebodys_own_stands(tmp_path: Path, old: str, new: str) -> None:
    text = (MODELS / "ocr/config.pbtxt").read_text()
    assert text.count(old) == 1
    (tmp_path / "ocr").mkdir()
    (tmp_path / "ocr/config.pbtxt").write_text(text.replace(old, new))
    assert count("ocr", 16, models=tmp_path) is None


def test_a_model_without_a_config_is_left_to_triton(tmp_path: Path) -> None:
    assert count("gone", 16, models=tmp_path) is None


def test_what_is_free_of_the_shared_memory(tmp_path: Path) -> None:
    free = pipeline_processes.free_shared_memory(tmp_path, 0)
    assert free > 0
    assert pipeline_processes.free_shared_memory(tmp_path, 1 << 40) == 0
    assert pipeline_processes.free_shared_memory(tmp_path / "gone", 0) == 0


def test_the_supervisor_holds_nothing_for_cards_until_one_is_used() -> None:
    heavy = {"google", "grpc", "mitmproxy", "numpy", "onnx", "tritonclient"}
    code = f"import sys, immich_triton.cli.run; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
