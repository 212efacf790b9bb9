"""Exported face models are compared with the originals; on the real ones: test_export_faces.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_faces
from onnx import numpy_helper

from immich_triton.export.faces import check, graphs
from immich_triton.export.faces.check import CheckError, Differences, Originals, compare, cosine


@pytest.fixture(autouse=True)
def small_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_images", tiny_faces.photos)


@pytest.fixture
def originals(tmp_path: Path) -> Originals:
    return Originals(*tiny_faces.save(tmp_path))


def exported(folder: Path, originals: Originals, *, faces: bool = True, weights: float = 1.0) -> tuple[Path, Path]:
    """Write the export of the tiny models, with other *weights* where wanted."""
    detector, recognizer = folder / "det.onnx", folder / "rec.onnx"
    onnx.save(graphs.detector(tiny_faces.detector(faces=faces)), detector)
    mean, std = originals.recognizer.input_mean, originals.recognizer.input_std
    model = graphs.recognizer(tiny_faces.recognizer(), mean=mean, std=std)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("weights"))
    value = numpy_helper.to_array(tensor).copy()
    value[:, :256] *= weights
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, recognizer)
    return detector, recognizer


def test_equal_models_pass_with_what_was_measured(originals: Originals, tmp_path: Path) -> None:
    differences = compare(originals, *exported(tmp_path, originals))
    assert differences.faces == len(tiny_faces.photos()), "one in each image"
    assert differences.box < 0.01
    assert differences.cosine > 0.99999
    assert differences.as_dict().keys() == Differences.__annotations__.keys()


@pytest.mark.parametrize("weights", [-1.0, float("nan"), float("inf")])
def test_other_embeddings_do_not_and_nor_does_what_is_no_number(
    originals: Originals, tmp_path: Path, weights: float
) -> None:
    with pytest.raises(CheckError, match=r"differ from the originals|fail"):
        compare(originals, *exported(tmp_path, originals, weights=weights))


def test_an_original_that_gives_no_number_proves_nothing(tmp_path: Path) -> None:
    detector, recognizer = tiny_faces.save(tmp_path)
    model = onnx.load(recognizer)
    (weights,) = model.graph.initializer
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32("nan"), weights.name))
    onnx.save(model, recognizer)
    broken = Originals(detector, recognizer)
    with pytest.raises(CheckError, match="differ from the originals"):
        compare(broken, *exported(tmp_path, broken))


def test_other_faces_do_not(originals: Originals, tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="finds 0 faces, the original 1"):
        compare(originals, *exported(tmp_path, originals, faces=False))


def test_where_there_is_no_face_nothing_is_compared(tmp_path: Path) -> None:
    blind = Originals(*tiny_faces.save(tmp_path, faces=False))
    with pytest.raises(CheckError, match="finds no face in the check images"):
        compare(blind, *exported(tmp_path, blind, faces=False))


def test_the_angle_between_two_vectors() -> None:
    a, b = np.array([3, 4], np.float32), np.array([-4, 3], np.float32)
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(a, b) == pytest.approx(0)
    assert cosine(a, -a) == pytest.approx(-1)
