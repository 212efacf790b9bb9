"""Proof that the rebuilt networks compute what the originals do, on networks of a few weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_ocr import CHARACTERS, detector, recognizer

from immich_triton.export.half import halve
from immich_triton.export.ocr import proof
from immich_triton.export.ocr.ctc_head import GROUP
from immich_triton.export.ocr.models import build_detector, build_recognizer
from immich_triton.export.ocr.proof import Proof, ProofError, prove_detector, prove_recognizer


@pytest.fixture(autouse=True)
def few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "DETECTION_SIZES", ((32, 32), (160, 288)))
    monkeypatch.setattr(proof, "WIDTHS", (64, 320))


def change(path: Path, name: str, by: float) -> None:
    """Add *by* to a constant of the model at *path*."""
    model = onnx.load(path)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((value + by).astype(value.dtype), name))
    onnx.save(model, path)


@pytest.fixture
def detectors(tmp_path: Path) -> tuple[Path, Path]:
    original, rebuilt = tmp_path / "original.onnx", tmp_path / "rebuilt.onnx"
    onnx.save(detector(), original)
    build_detector(original, rebuilt)
    return original, rebuilt


@pytest.fixture
def gpu_detectors(tmp_path: Path) -> tuple[Path, Path]:
    original, rebuilt = tmp_path / "original.onnx", tmp_path / "rebuilt.onnx"
    onnx.save(detector(), original)
    build_detector(original, rebuilt, gpu=True)
    return original, rebuilt


@pytest.fixture
def recognizers(tmp_path: Path) -> tuple[Path, Path]:
    original, rebuilt = tmp_path / "original.onnx", tmp_path / "rebuilt.onnx"
    onnx.save(recognizer(), original)
    (tmp_path / "dictionary.txt").write_text("i")
    build_recognizer(original, tmp_path / "dictionary.txt", rebuilt)
    return original, rebuilt


def test_a_detector_that_is_the_same_is_proved(detectors: tuple[Path, Path]) -> None:
    found = prove_detector(*detectors)
    assert found.runs == 4, "a page of text and noise of each size"
    assert found.largest < proof.TOLERANCE
    assert str(found).startswith("4 runs, largest difference ")


def test_one_that_differs_is_not(detectors: tuple[Path, Path]) -> None:
    change(detectors[1], "head_bias2", 0.01)
    with pytest.raises(ProofError, match="a text probability differs by"):
        prove_detector(*detectors)


def test_one_that_gives_no_number_is_not(detectors: tuple[Path, Path]) -> None:
    change(detectors[1], "head_bias2", float("nan"))
    with pytest.raises(ProofError, match="a text probability differs by inf"):
        prove_detector(*detectors)


def test_where_no_text_is_seen_nothing_is_proved(detectors: tuple[Path, Path]) -> None:
    for path, name in zip(detectors, ("drop", "head_bias2"), strict=True):
        change(path, name, -20)
    with pytest.raises(ProofError, match=r"sees no text on a page of 288x160"):
        prove_detector(*detectors)


def test_a_recognizer_that_is_the_same_is_proved(recognizers: tuple[Path, Path]) -> None:
    found = prove_recognizer(*recognizers, CHARACTERS)
    assert found.texts == 2 * len(proof.LINES)
    assert found.runs == 2 * (len(proof.LINES) + 2)
    assert found.steps == found.runs // 2 * (64 + 320) // 8
    assert found.largest < proof.TOLERANCE


def test_one_that_takes_another_class_is_not(recognizers: tuple[Path, Path]) -> None:
    model = onnx.load(recognizers[1])
    (classes,) = (tensor for tensor in model.graph.initializer if tensor.name == "ctc_places")
    classes.CopyFrom(numpy_helper.from_array(np.ones(GROUP, np.int32), classes.name))
    onnx.save(model, recognizers[1])
    with pytest.raises(ProofError, match=r"the folded arg-max of rebuilt\.onnx differs at width 64"):
        prove_recognizer(*recognizers, CHARACTERS)


def test_one_that_tells_how_likely_another_space_is_is_not(recognizers: tuple[Path, Path]) -> None:
    model = onnx.load(recognizers[1])
    (table,) = (tensor for tensor in model.graph.initializer if tensor.name == "ctc_table")
    table.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(table)), table.name))
    onnx.save(model, recognizers[1])
    with pytest.raises(ProofError, match="a score differs by"):
        prove_recognizer(*recognizers, CHARACTERS)


def test_one_whose_lines_say_nothing_is_not(recognizers: tuple[Path, Path]) -> None:
    for path, name in zip(recognizers, ("bias", "ctc_bias"), strict=True):
        model = onnx.load(path)
        (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        value = np.full_like(numpy_helper.to_array(bias), -60)
        value[0] = 60
        bias.CopyFrom(numpy_helper.from_array(value, name))
        onnx.save(model, path)
    with pytest.raises(ProofError, match="reads '' before the surgery"):
        prove_recognizer(*recognizers, CHARACTERS)


def test_a_dictionary_of_another_size_is_refused(recognizers: tuple[Path, Path]) -> None:
    with pytest.raises(ProofError, match="has 3 classes, the dictionary 4"):
        prove_recognizer(*recognizers, [*CHARACTERS, "j"])


def test_what_was_compared_is_told() -> None:
    assert str(Proof(7, 1e-7, steps=1234, texts=5)) == (
        "7 runs, 5 texts and 1,234 arg-max steps identical, largest difference 1.0e-07"
    )
    assert "steps identical but for 2 ties, " in str(Proof(7, 1e-7, steps=9, texts=5, ties=2))


def halved(pair: tuple[Path, Path]) -> tuple[Path, Path]:
    onnx.save(halve(onnx.load(pair[1])), pair[1])
    return pair


def test_a_detector_in_half_precision_may_differ_more(gpu_detectors: tuple[Path, Path]) -> None:
    found = prove_detector(*halved(gpu_detectors), proof.HALF)
    assert 1e-5 < found.largest < proof.HALF
    with pytest.raises(ProofError, match="more than the allowed 1e-05"):
        prove_detector(*gpu_detectors, 1e-5)


def test_but_not_too_much(gpu_detectors: tuple[Path, Path]) -> None:
    change(gpu_detectors[1], "head_bias2", 3)
    with pytest.raises(ProofError, match="more than the allowed 2e-01"):
        prove_detector(*halved(gpu_detectors), proof.HALF)


def test_a_recogniser_in_half_precision_reads_the_same_texts(recognizers: tuple[Path, Path]) -> None:
    assert prove_recognizer(*halved(recognizers), CHARACTERS, proof.HALF).texts == 2 * len(proof.LINES)
