"""What ``scripts/lab/gpu.py`` tries on a card: which options it gives, what it refuses, and its parts on the CPU."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime_backend.engines import runtime_module
from triton import tiny_models

from benchmarks import levers
from benchmarks.levers import CPU, CUDA, LEVERS, TENSORRT, Lever, LeverError

ON_CARD = [TENSORRT, CUDA, CPU]


def options(name: str) -> dict[str, Any]:
    """Return what the first provider is given for the lever *name*, on a card where everything is there."""
    (provider, given), *_ = levers.providers(levers.named(name), ON_CARD, gpu=True)
    assert provider == levers.named(name).provider
    return dict(given)


def test_each_lever_is_one_change_beside_what_the_export_asks_for() -> None:
    exported = options("as exported")
    assert exported == {**levers.PLAIN, "device_id": "0"}
    assert exported["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options("bound") == options("fp16") == exported
    assert options("CUDA graph") == {**exported, "enable_cuda_graph": "1"}
    assert options("NHWC") == {**exported, "prefer_nhwc": "1"}
    assert options("exhaustive search") == {**exported, "cudnn_conv_algo_search": "EXHAUSTIVE"}
    assert options("TensorRT fp16") == {"trt_fp16_enable": "1", "device_id": "0"}


def test_a_graph_is_recorded_over_memory_that_keeps_its_place() -> None:
    assert all(lever.bound for lever in LEVERS if "enable_cuda_graph" in lever.options)


def test_tensorrt_leaves_to_cuda_what_it_cannot_do() -> None:
    names = [one if isinstance(one, str) else one[0] for one in levers.providers(LEVERS[-1], ON_CARD, gpu=True)]
    assert names == [TENSORRT, CUDA, CPU]


@pytest.mark.parametrize(
    ("name", "available", "gpu", "why"),
    [
        ("TensorRT", [CUDA, CPU], True, f"has no {TENSORRT}; it has {CUDA}, {CPU}"),
        ("as exported", [CPU], True, f"has no {CUDA}; it has {CPU}"),
        ("NHWC", [CPU], False, "is for a card"),
        ("TensorRT", [CPU], False, "is for a card"),
    ],
)
def test_what_cannot_be_tried_is_refused(name: str, available: list[str], gpu: bool, why: str) -> None:
    with pytest.raises(LeverError, match=why):
        levers.providers(levers.named(name), available, gpu=gpu)


def network(folder: Path) -> Path:
    (folder / "1").mkdir(parents=True)
    tiny_models.convolution(folder / "1/model.onnx")
    (folder / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 8\n'
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] } ]\n'
        'parameters { key: "shapes" value { string_value: "1x3x8x8 4x3x8x8 2x3x8x8" } }\n'
    )
    return folder


@pytest.mark.parametrize(("name", "tolerance"), [("as exported", 0.0), ("bound", 1e-6), ("fp16", 2e-2)])
def test_times_and_differences_of_the_smallest_and_the_largest_shape(
    tmp_path: Path, name: str, tolerance: float
) -> None:
    found = list(levers.measure([network(tmp_path / "net")], levers.named(name), gpu=False, runs=2))
    assert [one.what for one in found] == ["net 1x3x8x8", "net 4x3x8x8"]
    assert all(one.milliseconds > 0 and one.difference <= tolerance and one.cosine is None for one in found)
    if name == "fp16":
        assert any(one.difference > 0 for one in found), "it was computed in another precision"


def test_of_embeddings_the_cosine_counts() -> None:
    ours, theirs = np.eye(2, 200), np.array([np.eye(1, 200)[0], np.full(200, 1.0)])
    assert levers._cosine(ours, theirs) == pytest.approx(1 / np.sqrt(200))
    assert levers._embeds(ours)
    assert not levers._embeds(np.zeros((2, 40)))
    assert not levers._embeds(np.zeros((1, 1, 736, 992)))


def test_a_row_says_how_many_times_as_long_it_takes_or_why_not(tmp_path: Path) -> None:
    names = ["as exported", "NHWC", "overclocking"]
    deadline = time.monotonic() + 600
    table = dict(levers.rows([network(tmp_path / "net")], names, gpu=False, runs=2, deadline=deadline))
    assert list(table) == [f"lever: {name}" for name in names]
    assert "net 4x3x8x8" in table["lever: as exported"]
    assert table["lever: as exported"].endswith("largest difference 0.0e+00")
    assert "(1.00x)" in table["lever: as exported"]
    assert table["lever: NHWC"] == "not possible: is for a card"
    assert table["lever: overclocking"].startswith("not possible: there is no lever 'overclocking'; there are as exp")


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    rows = levers.rows([tmp_path], ["fp16"], gpu=False, runs=1, deadline=-math.inf)
    assert list(rows) == [("lever: fp16", "not measured: no time left")]


def test_a_process_that_dies_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levers, "_ALONE", "import sys; sys.exit('the driver is gone')")
    rows = levers.rows([tmp_path], ["fp16"], gpu=False, runs=1, deadline=time.monotonic() + 600)
    assert list(rows) == [("lever: fp16", "its process ended with 1: the driver is gone")]


def test_a_provider_that_does_not_load_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # ONNX Runtime only logs it and goes on with the CPU.
    monkeypatch.setattr(runtime_module(), "preload_dlls", lambda **_arguments: None, raising=False)
    monkeypatch.setattr(levers, "providers", lambda *_arguments, **_more: [CPU])
    with pytest.raises(LeverError, match=f"{CUDA} did not load"):
        list(levers.measure([network(tmp_path / "net")], Lever("as exported"), gpu=True, runs=1))
