"""``immich-triton export faces``, run on archives that look like InsightFace's packs and hold the stand-ins."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import face_standins
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from triton.config_rules import check_config

from immich_pipelines import faces_detection
from immich_triton.cli import export_faces
from immich_triton.export.faces import graphs as faces_graphs
from immich_triton.export.faces.check import CheckError, Originals, compare
from immich_triton.export.faces.packs import PACKS
from immich_triton.export.onnx_graph import GraphError
from immich_triton.export.sessions import cpu_session


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return face_standins.archive("buffalo_l", tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def exported(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with two packs side by side."""
    models = tmp_path_factory.mktemp("exported") / "models"
    assert run("buffalo_l", archive, models) == 0
    antelope = face_standins.archive("antelopev2", archive.parent)
    nested = archive.parent / "nested.zip"
    # antelopev2.zip holds its files in a folder of their own.
    with zipfile.ZipFile(antelope) as source, zipfile.ZipFile(nested, "w") as target:
        for member in source.namelist():
            target.writestr(f"antelopev2/{member}", source.read(member))
    assert run("antelopev2", nested, models) == 0
    return models


def run(pack: str, archive: Path, models: Path, *more: str) -> int:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    options = ["--accept-license", "--archive", str(archive), "--sha256", digest, "--models", str(models)]
    return export_faces.main([pack, *options, *more])


def test_packs_lie_side_by_side(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {
        "face_det_buffalo_l",
        "face_rec_buffalo_l",
        "face_det_antelopev2",
        "face_rec_antelopev2",
        "faces",
    }
    assert (exported / "faces/1/model.py").is_file()


@pytest.mark.parametrize("pack", ["buffalo_l", "antelopev2"])
def test_the_route_names_the_pack_and_its_models(exported: Path, pack: str) -> None:
    route = tomllib.loads((exported / f"face_rec_{pack}/route.toml").read_text(encoding="utf-8"))
    detector, recognizer = f"face_det_{pack}", f"face_rec_{pack}"
    weights = face_standins.detector().SerializeToString() + face_standins.recognizer().SerializeToString()
    assert route == {
        "task": "facial-recognition",
        "names": [pack],
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "dimension": 512,
        "pipelines": [
            {
                "name": "faces",
                "types": ["detection", "recognition"],
                "models": [detector, recognizer],
                "parameters": {"detector": detector, "recognizer": recognizer},
            }
        ],
    }


def test_the_record_tells_source_and_differences(exported: Path, archive: Path) -> None:
    record = json.loads((exported / "face_det_buffalo_l/export.json").read_text(encoding="utf-8"))
    assert record["archive"] == "buffalo_l.zip"
    assert "non-commercial" in record["licence"]
    assert record["archive_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert record["file"] == PACKS["buffalo_l"].detector
    assert record["file_sha256"] == hashlib.sha256(face_standins.detector().SerializeToString()).hexdigest()
    differences = record["largest_differences"]
    assert differences["faces"] == 6
    assert differences["box"] < 0.01
    assert differences["cosine"] > 0.99999


def test_configs_suit_both_servers(exported: Path, archive: Path, tmp_path: Path) -> None:
    assert run("buffalo_l", archive, tmp_path / "gpu", "--gpu") == 0
    for models, kind, detectors in ((exported, "KIND_CPU", 2), (tmp_path / "gpu", "KIND_GPU", 1)):
        for name, count in (("face_det_buffalo_l", detectors), ("face_rec_buffalo_l", 1)):
            text = (models / name / "config.pbtxt").read_text(encoding="utf-8")
            assert check_config(text) == []
            assert f'name: "{name}"' in text
            assert f"count: {count}, kind: {kind}" in text


def test_both_models_take_batches_of_pixels(exported: Path) -> None:
    for name, side, batch in (("face_det_buffalo_l", 640, 3), ("face_rec_buffalo_l", 112, 5)):
        session = cpu_session(exported / name / "1/model.onnx")
        outputs = session.run(None, {"pixels": np.zeros((batch, side, side, 3), np.uint8)})
        assert {len(output) for output in outputs} == {batch}


def test_a_detector_exported_for_one_size_with_a_batch_of_one(tmp_path: Path) -> None:
    """The layout of newer exports: heads of [1, candidates, size], and Resize nodes with a fixed batch of one."""
    model = face_standins.scrfd()
    assert [dimension.dim_value for dimension in model.graph.output[0].type.tensor_type.shape.dim] == [1, 12800, 1]
    onnx.save(faces_graphs.detector(model), tmp_path / "model.onnx")
    images = np.random.default_rng(1).integers(0, 255, (3, 640, 640, 3), dtype=np.uint8)
    found = cpu_session(tmp_path / "model.onnx").run(list(faces_detection.OUTPUTS), {"pixels": images})
    original = cpu_session(model.SerializeToString())
    for index, image in enumerate(images):
        blob = (image.transpose(2, 0, 1)[np.newaxis].astype(np.float32) - 127.5) / 128
        for ours, theirs in zip(found, original.run(None, {"input.1": blob}), strict=True):
            np.testing.assert_allclose(ours[index], theirs[0], atol=1e-4)


def test_heads_that_are_reshaped_once_more(tmp_path: Path) -> None:
    """As when somebody takes the batch axis of a newer export away: [1, candidates, size] to [candidates, size]."""
    model = face_standins.scrfd()
    for output, (name, shape) in zip(model.graph.output, faces_detection.OUTPUTS.items(), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape), f"{name}_shape"))
        model.graph.node.append(helper.make_node("Reshape", [output.name, f"{name}_shape"], [f"{name}_flat"]))
        output.CopyFrom(helper.make_tensor_value_info(f"{name}_flat", onnx.TensorProto.FLOAT, shape))
    onnx.save(faces_graphs.detector(model), tmp_path / "flat.onnx")
    onnx.save(faces_graphs.detector(face_standins.scrfd()), tmp_path / "plain.onnx")
    feed = {"pixels": np.random.default_rng(2).integers(0, 255, (2, 640, 640, 3), dtype=np.uint8)}
    flat, plain = (cpu_session(tmp_path / f"{name}.onnx").run(None, feed) for name in ("flat", "plain"))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(flat, plain, strict=True))


def test_the_licence_must_be_accepted(capsys: pytest.CaptureFixture[str], archive: Path, tmp_path: Path) -> None:
    assert export_faces.main(["buffalo_l", "--archive", str(archive), "--models", str(tmp_path / "models")]) == 2
    output = capsys.readouterr()
    assert "NON-COMMERCIAL RESEARCH" in output.out
    assert "--accept-license" in output.err
    assert not (tmp_path / "models").exists()


def test_an_archive_that_is_not_the_published_one(
    capsys: pytest.CaptureFixture[str], archive: Path, tmp_path: Path
) -> None:
    options = ["buffalo_l", "--accept-license", "--archive", str(archive), "--models", str(tmp_path / "models")]
    assert export_faces.main(options) == 1
    assert PACKS["buffalo_l"].sha256 in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def _no_zip(archive: Path) -> None:
    archive.write_bytes(b"no archive")


def _no_recognizer(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("det_10g.onnx", b"")


def _recognizer_of_another_size(archive: Path) -> None:
    model = face_standins.recognizer()
    (padding,) = [value for value in model.graph.initializer if value.name == "padding"]
    padding.CopyFrom(numpy_helper.from_array(np.array([0, 0, 0, 0]), "padding"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 128
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("det_10g.onnx", face_standins.detector().SerializeToString())
        file.writestr("w600k_r50.onnx", model.SerializeToString())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_no_zip, "cannot be read as a ZIP file"),
        (_no_recognizer, "should hold one w600k_r50.onnx, but holds det_10g.onnx"),
        (_recognizer_of_another_size, "gives 128 numbers"),
    ],
    ids=["no zip", "no recogniser", "another size"],
)
def test_a_wrong_archive_changes_nothing(
    capsys: pytest.CaptureFixture[str],
    exported: Path,
    tmp_path: Path,
    build: Callable[[Path], None],
    message: str,
) -> None:
    models = shutil.copytree(exported, tmp_path / "models")
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    build(tmp_path / "wrong.zip")
    assert run("buffalo_l", tmp_path / "wrong.zip", models) == 1
    assert message in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_head_of_another_shape_is_refused() -> None:
    model = face_standins.detector()
    transpose = next(node for node in model.graph.node if node.op_type == "Transpose")
    transpose.attribute[0].CopyFrom(helper.make_attribute("perm", [0, 1, 3, 2]))
    with pytest.raises(GraphError, match="unexpected order"):
        faces_graphs.detector(model)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    folder = tmp_path_factory.mktemp("originals")
    onnx.save(face_standins.detector(), folder / "detector.onnx")
    onnx.save(face_standins.recognizer(), folder / "recognizer.onnx")
    return Originals(folder / "detector.onnx", folder / "recognizer.onnx")


@pytest.mark.parametrize("wrong", ["bgr", "mean", "batch"])
def test_the_check_finds_wrong_models(exported: Path, originals: Originals, tmp_path: Path, wrong: str) -> None:
    detector, recognizer = exported / "face_det_buffalo_l/1/model.onnx", exported / "face_rec_buffalo_l/1/model.onnx"
    model = onnx.load(detector if wrong == "batch" else recognizer)
    if wrong == "bgr":
        values = next(value for value in model.graph.initializer if list(value.dims)[1:] == [3, 3, 3])
        values.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(values)[:, ::-1].copy(), values.name))
    elif wrong == "mean":
        model = faces_graphs.recognizer(face_standins.recognizer(), mean=127.5, std=127.5)
    else:
        # Every image of the batch gets the boxes of the first.
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
        last = next(node for node in model.graph.node if "bbox_16" in node.output)
        last.output[0] = "bbox_16_all"
        shape = helper.make_node("Shape", ["bbox_16_all"], ["bbox_16_shape"])
        first = helper.make_node("Gather", ["bbox_16_all", "first"], ["bbox_16_first"], axis=0)
        model.graph.node.extend(
            [shape, first, helper.make_node("Expand", ["bbox_16_first", "bbox_16_shape"], ["bbox_16"])]
        )
    onnx.save(model, tmp_path / "wrong.onnx")
    models = (tmp_path / "wrong.onnx", recognizer) if wrong == "batch" else (detector, tmp_path / "wrong.onnx")
    with pytest.raises(CheckError, match="differ from the originals"):
        compare(originals, *models)
