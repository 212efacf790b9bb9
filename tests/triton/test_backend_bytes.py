"""A model of bytes (int8) is computed as such where the CPU adds their products up in enough bits, elsewhere in floats.

Without VNNI both engines would cut sums of two products off at 16 bits, and answer half of what is right here, but for
weights that are small enough for that, as a model says of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime_backend import engines
from onnxruntime_backend.engines import load_engine
from onnxruntime_backend.openvino_engine import OpenVinoEngine
from onnxruntime_backend.settings import Settings
from triton import tiny_models
from triton.tiny_models import CHANNELS

from immich_pipelines import cpus
from immich_pipelines.onnx_metadata import of_bytes, too_wide

ONNX_RUNTIME = Settings(intra_op_threads=1)
OPENVINO = Settings(engine="openvino", intra_op_threads=1)
SHAPE = (2, CHANNELS, 4, 6)

REALLY = cpus.pair_bits()
"""32 where the CPU that runs the tests has VNNI."""

CASES = [(32, 32, True), (32, 16, False), (32, 0, False), (16, 32, True), (16, 16, True), (16, 0, False)]
"""Bits that hold any two products of the model, those in which the CPU adds two up, and whether it does."""


@pytest.fixture
def image() -> tiny_models.Array:
    """Pixels so bright that two products of bytes exceed 16 bits."""
    return np.random.default_rng(5).integers(180, 256, SHAPE).astype(np.float32) / 255


def say(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    """Have the CPU add two products up in so many bits."""
    monkeypatch.setattr(cpus, "pair_bits", lambda: bits)


def convolutions(engine: OpenVinoEngine) -> list[str]:
    """Return the kernels in which OpenVINO computes convolutions, as ``brgconv_avx512_I8``."""
    infos = [operator.get_rt_info() for operator in engine._compiled.get_runtime_model().get_ops()]
    return [info["primitiveType"].astype(str) for info in infos if info["layerType"].astype(str) == "Convolution"]


@pytest.mark.parametrize("shape", [None, SHAPE], ids=["any shape", "one shape"])
@pytest.mark.parametrize("signed", [False, True], ids=["u8", "s8"])
@pytest.mark.parametrize(("bits", "cpu", "multiplies"), CASES)
def test_openvino_multiplies_bytes_only_where_the_cpu_can(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: tiny_models.Array,
    bits: int,
    cpu: int,
    multiplies: bool,
    signed: bool,
    shape: tuple[int, ...] | None,
) -> None:
    say(monkeypatch, cpu)
    path = tiny_models.of_bytes(tmp_path / "model.onnx", signed=signed, bits=bits)
    engine = OpenVinoEngine(path, OPENVINO, shape)

    (result,) = engine.run(["y"], {"x": image})

    (used,) = convolutions(engine)
    assert used.endswith("_I8" if multiplies else "_f32")
    if bits <= REALLY or not multiplies:
        assert_right(result, image, signed=signed)


class Watched:
    """An ONNX Runtime that remembers the operators and the options of each session."""

    def __init__(self, folder: Path) -> None:
        self._real, self._folder = engines.runtime_module(), folder
        self.sessions: list[set[str]] = []
        self.options: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def InferenceSession(self, path: str, sess_options: Any, providers: Sequence[Any]) -> Any:  # noqa: N802 - the real one's name
        optimized = self._folder / f"optimized{len(self.sessions)}.onnx"
        sess_options.optimized_model_filepath = str(optimized)
        session = self._real.InferenceSession(path, sess_options=sess_options, providers=providers)
        self.sessions.append({node.op_type for node in onnx.load(optimized).graph.node})
        self.options.append(sess_options)
        return session


@pytest.mark.parametrize("signed", [False, True], ids=["u8", "s8"])
@pytest.mark.parametrize(("bits", "cpu", "multiplies"), CASES)
def test_onnx_runtime_multiplies_bytes_only_where_the_cpu_can(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: tiny_models.Array,
    bits: int,
    cpu: int,
    multiplies: bool,
    signed: bool,
) -> None:
    say(monkeypatch, cpu)
    runtime = Watched(tmp_path)
    monkeypatch.setattr(engines, "runtime_module", lambda: runtime)
    path = tiny_models.of_bytes(tmp_path / "model.onnx", signed=signed, bits=bits)

    (result,) = load_engine(path, ONNX_RUNTIME).run(["y"], {"x": image})

    (operators,) = runtime.sessions
    assert operators & {"Conv", "QLinearConv"} == {"QLinearConv" if multiplies else "Conv"}
    if bits <= REALLY or not multiplies:
        assert_right(result, image, signed=signed)


def test_what_onnx_runtime_has_to_multiply_as_bytes_is_to_be_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the graph itself says ``QLinearConv`` or ``MatMulInteger``; has no effect on a CPU with VNNI."""
    say(monkeypatch, 16)
    runtime = Watched(tmp_path)
    monkeypatch.setattr(engines, "runtime_module", lambda: runtime)
    load_engine(tiny_models.of_bytes(tmp_path / "model.onnx"), ONNX_RUNTIME)
    (options,) = runtime.options
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


@pytest.mark.parametrize("settings", [ONNX_RUNTIME, OPENVINO], ids=["onnxruntime", "openvino"])
def test_a_session_for_each_shape_and_the_one_for_all_others_do_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: tiny_models.Array, settings: Settings
) -> None:
    say(monkeypatch, 16)
    path = tiny_models.of_bytes(tmp_path / "model.onnx")
    engine = load_engine(path, replace(settings, shapes=((1, *SHAPE[1:]), SHAPE)))

    for some in (image, image[:1], image[..., :5]):
        (result,) = engine.run(["y"], {"x": some})
        assert_right(result, some)


@pytest.mark.parametrize("settings", [ONNX_RUNTIME, OPENVINO], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize("shapes", [(), ((1, *SHAPE[1:]), SHAPE)], ids=["one session", "a session for each shape"])
def test_that_bytes_are_computed_in_floats_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings, shapes: tuple[tuple[int, ...], ...]
) -> None:
    path = tiny_models.of_bytes(tmp_path / "bytes.onnx")
    settings = replace(settings, shapes=shapes)
    told: list[str] = []
    say(monkeypatch, 16)
    load_engine(path, settings, warn=told.append)
    assert len(told) == 1
    assert "(VNNI)" in told[0]
    floats = tiny_models.weights_of_bytes(tmp_path / "floats.onnx")
    load_engine(floats, replace(settings, shapes=()), warn=pytest.fail)
    narrow = tiny_models.of_bytes(tmp_path / "narrow.onnx", bits=16)
    load_engine(narrow, settings, warn=pytest.fail)
    say(monkeypatch, 32)
    load_engine(path, settings, warn=pytest.fail)


def test_a_model_of_bytes_is_known_by_its_operators(tmp_path: Path) -> None:
    assert of_bytes(tiny_models.of_bytes(tmp_path / "bytes.onnx"))
    assert not of_bytes(tiny_models.weights_of_bytes(tmp_path / "weights.onnx"))
    assert not of_bytes(tiny_models.two_layers(tmp_path / "floats.onnx", external_data=True))
    (tmp_path / "damaged.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ValueError, match="no ONNX file"):
        of_bytes(tmp_path / "damaged.onnx")


@pytest.mark.parametrize(("bits", "cpu", "multiplies"), CASES)
def test_a_model_says_how_many_bits_its_sums_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, cpu: int, multiplies: bool
) -> None:
    say(monkeypatch, cpu)
    assert too_wide(tiny_models.of_bytes(tmp_path / "bytes.onnx", bits=bits)) is not multiplies
    assert not too_wide(tiny_models.weights_of_bytes(tmp_path / "weights.onnx"))


def assert_right(result: tiny_models.Array, image: tiny_models.Array, *, signed: bool = False) -> None:
    """Compare with sums of *image* over its channels, which the model rounds twice: each pixel, and each sum."""
    expected = np.broadcast_to(image.sum(axis=1, keepdims=True), image.shape)
    step = CHANNELS / (127 if signed else 255)
    assert np.abs(result - expected).max() <= step
