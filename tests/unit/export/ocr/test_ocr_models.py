"""The OCR networks as Triton models, from networks of a few weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_ocr import CHARACTERS, detector, recognizer
from triton.config_rules import check_config

from immich_pipelines.ocr_ctc import Decoder
from immich_pipelines.ocr_variants import MOST
from immich_triton.export import onnx_graph
from immich_triton.export.ocr import models
from immich_triton.export.ocr.models import Placement, detector_config, placements, recognizer_config
from immich_triton.export.sessions import cpu_session


@pytest.mark.parametrize(
    ("cpus", "detector", "recognizer"),
    [
        (1, (1, 1), (1, 1)),
        (2, (1, 2), (2, 1)),
        (4, (2, 2), (4, 1)),
        (6, (3, 2), (4, 1)),
        (16, (4, 4), (4, 4)),
    ],
)
def test_a_copy_of_the_recogniser_for_each_cpu_and_half_as_many_of_the_detector(
    monkeypatch: pytest.MonkeyPatch, cpus: int, detector: tuple[int, int], recognizer: tuple[int, int]
) -> None:
    monkeypatch.setattr(models, "available_cpus", lambda: cpus)
    expected = tuple(Placement(*each, precision="f32") for each in (detector, recognizer))
    assert placements(precision="f32") == expected


def test_a_gpu_has_one_copy_of_each() -> None:
    for placement in placements(gpu=True):
        assert (placement.instances, placement.gpu, placement.precision, placement.half) == (1, True, "f32", False)


def test_weights_are_halved_for_a_gpu_alone_and_when_it_is_asked_for() -> None:
    assert all(placement.half for placement in placements(precision="f16", gpu=True))
    assert not any(placement.half for placement in placements(precision="f32"))
    with pytest.raises(ValueError, match="f16 is not for a CPU; without --gpu --precision is int8, bf16, f32"):
        placements(precision="f16")
    with pytest.raises(ValueError, match="bf16 is not for a GPU; with --gpu --precision is f32, f16"):
        placements(precision="bf16", gpu=True)
    config = detector_config("PP-OCR", placements(precision="f16", gpu=True)[0], 1000)
    assert "in half precision" in config
    assert check_config(config) == []
    assert "half" not in detector_config("PP-OCR", placements(gpu=True)[0], 1000)


@pytest.mark.parametrize(
    ("pair_bits", "bf16", "gpu", "version", "precision"),
    [
        (32, True, False, "v5+v6", "int8"),
        (16, False, False, "v5+v6", "int8"),
        (0, True, False, "v5+v6", "bf16"),
        (0, False, False, "v5", "bf16"),
        (0, False, True, "v5+v6", "f32"),
        (32, True, True, "v5+v6", "f32"),
    ],
)
def test_the_default_is_what_is_fast_here(
    monkeypatch: pytest.MonkeyPatch, pair_bits: int, bf16: bool, gpu: bool, version: str, precision: str
) -> None:
    monkeypatch.setattr(models, "computes_bf16", lambda: bf16)
    monkeypatch.setattr(models, "pair_bits", lambda: pair_bits)
    assert models.default_version(gpu=gpu) == version
    # In bf16 a detector is faster than one that is in int8 in part.
    detector = "bf16" if precision == "int8" and bf16 else precision
    assert [placement.precision for placement in placements(gpu=gpu)] == [detector, precision]


def test_what_is_not_in_int8_is_computed_in_f32() -> None:
    placement = Placement(1, 2, precision="int8")
    assert placement.int8
    assert not placement.half
    config = detector_config("PP-OCR", placement, 1000)
    assert "# Some of its layers are in int8." in config
    assert '"inference_precision" value { string_value: "f32" }' in config
    assert "int8" not in detector_config("PP-OCR", Placement(1, 2), 1000)


def test_a_detector_that_sees_the_same_in_any_size(tmp_path: Path) -> None:
    onnx.save(detector(), tmp_path / "source.onnx")
    page = np.random.default_rng(0).integers(0, 256, (1, 32, 96, 3), np.uint8)
    floats = np.ascontiguousarray((page[..., ::-1] / np.float32(127.5) - 1).transpose(0, 3, 1, 2), np.float32)
    (expected,) = cpu_session(tmp_path / "source.onnx").run(None, {"x": floats})
    for gpu in (False, True):
        models.build_detector(tmp_path / "source.onnx", tmp_path / "model.onnx", gpu=gpu)
        session = cpu_session(tmp_path / "model.onnx")
        assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == ["x", "text"]
        (found,) = session.run(None, {"x": page})
        assert found.shape == (1, 1, 32, 96)
        assert np.abs(found - expected).max() < 1e-5


def test_a_recognizer_tells_classes_and_carries_its_dictionary(tmp_path: Path) -> None:
    onnx.save(recognizer(), tmp_path / "source.onnx")
    (tmp_path / "dictionary.txt").write_text("i\r\n")
    characters = models.build_recognizer(tmp_path / "source.onnx", tmp_path / "dictionary.txt", tmp_path / "model.onnx")
    assert characters == list(CHARACTERS)
    assert onnx_graph.metadata(onnx.load(tmp_path / "model.onnx")) == {
        "character": "i",
        "simplified": "",
        "traditional": "",
        "alike": "",
    }
    session = cpu_session(tmp_path / "model.onnx")
    line = np.ones((1, 3, 48, 24), np.float32)
    line[..., 8:16] = -1  # a stroke in the middle
    indices, scores, others = session.run(["indices", "scores", "alternatives"], {"x": line})
    assert indices.tolist() == [[0, 1, 0]]
    assert scores.min() > 0.9
    # Of each step the space; an ``i`` has no variants.
    assert others.shape == (1, 3, 1 + MOST)
    assert others[..., 0].max() < 0.1


def test_a_recognizer_tells_how_likely_variants_are(tmp_path: Path) -> None:
    model = recognizer()
    for tensor in model.graph.initializer:
        if tensor.name in {"weights", "bias"}:
            value = numpy_helper.to_array(tensor)
            # A second stroke, a little less likely than the first.
            more = value[..., 1:2] - (0.5 if tensor.name == "bias" else 0)
            value = np.concatenate([value[..., :2], more, value[..., 2:]], axis=-1)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value = 4
    onnx_graph.set_metadata(model, "character", "广\n廣")
    onnx.save(model, tmp_path / "source.onnx")
    models.build_recognizer(tmp_path / "source.onnx", None, tmp_path / "model.onnx")
    line = np.full((1, 3, 48, 8), -1, np.float32)
    outputs = cpu_session(tmp_path / "model.onnx").run(None, {"x": line})
    (text,) = Decoder.of(tmp_path / "model.onnx")(*outputs)
    assert (text.words, text.choices[0].script) == ("广", 1)
    ((variant, likely),) = text.choices[0].variants
    assert variant == "廣"
    assert likely == pytest.approx(text.score * np.exp(-0.5), rel=1e-4)


def test_a_network_may_bring_its_own_dictionary_and_it_must_fit(tmp_path: Path) -> None:
    model = recognizer()
    onnx_graph.set_metadata(model, "character", "i")
    onnx.save(model, tmp_path / "source.onnx")
    assert models.build_recognizer(tmp_path / "source.onnx", None, tmp_path / "model.onnx") == list(CHARACTERS)
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "dictionary.txt").write_text("i\nj\n")
    with pytest.raises(onnx_graph.GraphError, match="the dictionary has 4 entries, the network 3 classes"):
        models.build_recognizer(tmp_path / "source.onnx", tmp_path / "dictionary.txt", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("config", [detector_config, recognizer_config])
def test_configs_suit_both_servers(config: Callable[[str, Placement, int], str]) -> None:
    cpu = config("PP-OCR", Placement(4, 2, precision="f32"), 1000)
    gpu = config("PP-OCR", Placement(1, 0, gpu=True), 1000)
    for text in (cpu, gpu):
        assert check_config(text) == []
        assert text.startswith("# PP-OCR, text ")
    assert "kind: KIND_CPU count: 4" in cpu
    assert 'key: "inference_precision" value { string_value: "f32" }' in cpu
    assert 'key: "intra_op_thread_count" value { string_value: "2" }' in cpu
    assert "kind: KIND_GPU count: 1" in gpu
    assert ("dynamic_batching {" in gpu) == (config is recognizer_config), "a detector takes one page at a time"
    assert "dynamic_batching {" not in cpu, "Triton's batcher spins while no copy is free"
    assert "openvino" not in gpu
