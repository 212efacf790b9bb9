"""What keeps a repository from being deployed is found in its files, one line each, and nothing else is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny_encoders
from onnx import TensorProto
from small_models import write_model
from triton.tiny_models import config, of_bytes, save

from immich_pipelines import cpus
from immich_triton.export.archive import archive, restore
from immich_triton.server.repository_check import check


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("check") / "models"
    tiny_encoders.repository(models)
    return models


@pytest.fixture
def models(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "models")
    return tmp_path / "models"


def problems(models: Path) -> list[str]:
    return [str(finding) for finding in check(models) if finding.level != "ok"]


def replace(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_sound_repository_has_a_good_line_for_each_model_and_route(models: Path) -> None:
    assert problems(models) == []
    found = [*check(models)]
    assert {finding.where for finding in found} == {
        "clip_image",
        "clip_text",
        "see_a",
        "see_b",
        "read_a",
        "read_b",
        "see_a/route.toml",
    }
    assert all("\n" not in str(finding) for finding in found)


def other_dimension(models: Path) -> None:
    # Of the route and of its name in Immich, so that it fits there.
    replace(models / "see_a/route.toml", "dimension = 512", "dimension = 768")
    replace(models / "see_a/route.toml", "ViT-B-32__openai", "ViT-L-14__openai")


def other_fingerprint(models: Path) -> None:
    tiny_encoders.TinyEncoder(models, "see_a", 99, visual=True).write()


def cut_off(models: Path) -> None:
    path = models / "see_a/1/model.onnx"
    path.write_bytes(path.read_bytes()[:5000])


def other_record(models: Path) -> None:
    path = models / "read_a/export.json"
    record = json.loads(path.read_text())
    record["weights"]["sha256"] = "f" * 64
    path.write_text(json.dumps(record))


def on_a_gpu_without_batches(models: Path) -> None:
    replace(models / "see_b/config.pbtxt", "dynamic_batching { }", "")
    assert problems(models) == [], "on a CPU that is as good"
    whole = (models / "see_b/config.pbtxt").read_text()
    replace(models / "see_b/config.pbtxt", "instance_group [ { count: 1, kind: KIND_CPU } ]\n", "")
    assert any("without dynamic_batching" in line for line in problems(models)), "Triton puts it on every GPU then"
    (models / "see_b/config.pbtxt").write_text(whole.replace("KIND_CPU", "KIND_GPU"))


def other_tensors(models: Path) -> None:
    config = models / "see_a/config.pbtxt"
    config.write_text(config.read_text() + 'output [ { name: "EMBEDDING" data_type: TYPE_FP32 dims: [ 768 ] } ]\n')


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda models: (models / "notes").mkdir(), r"error: notes: there is no config.pbtxt in its folder → remove"),
        (lambda models: (models / "see_b/1/model.onnx").unlink(), r"error: see_b: model.onnx is missing → "),
        (
            lambda models: (models / "see_b/config.pbtxt").write_text('backend: "onnxruntime"\nnoise'),
            r"error: see_b: config.pbtxt does not parse: 2:\d+ .* → correct that line",
        ),
        (
            lambda models: replace(models / "see_b/config.pbtxt", 'name: "see_b"', 'name: "other"'),
            r"error: see_b: config.pbtxt says that its name is other",
        ),
        (
            lambda models: replace(models / "see_b/config.pbtxt", '"onnxruntime"', '"tensorrt_plan"'),
            r"error: see_b: backend is 'tensorrt_plan', which the embedded Triton does not have",
        ),
        (
            on_a_gpu_without_batches,
            r"warning: see_b: max_batch_size without dynamic_batching",
        ),
        (other_tensors, r"error: see_a: output EMBEDDING has dims \[768\] in config.pbtxt, \[512\] in the file"),
        (cut_off, r"error: see_a: model.onnx is no ONNX model"),
        (
            lambda models: shutil.rmtree(models / "read_a"),
            r"error: see_a/route.toml: clip_text needs the model read_a, which is not here → export",
        ),
        (
            lambda models: shutil.rmtree(models / "clip_text"),
            r"error: see_a/route.toml: clip_text needs the model clip_text, which is not here → immich-triton run",
        ),
        (
            lambda models: replace(models / "see_a/route.toml", 'encoder = "see_a"', 'encoder = "see_b"'),
            r"error: see_a/route.toml: encoder is see_b, which is none of its models",
        ),
        (other_dimension, r"says 768 numbers, see_a gives 512: they would not fit the search index"),
        (
            lambda models: replace(models / "see_a/route.toml", "dimension = 512", "dimension = 768"),
            r"error: see_a/route.toml: .* answers ViT-B-32__openai with 768 numbers, but Immich expects 512",
        ),
        (
            lambda models: replace(models / "see_a/route.toml", "task", "tusk"),
            r"error: see_a/route.toml: .*unknown key 'tusk'",
        ),
        (other_fingerprint, r"error: see_a/route.toml: see_a answers with the fingerprint 99, the route says 11"),
        (other_record, r"error: see_a/route.toml: read_a/export.json is about other weights"),
        (
            lambda models: shutil.copy(models / "see_a/route.toml", models / "see_b"),
            r"error: routes: .* both answer clip ViT-B-32__openai",
        ),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(models: Path, damage: Callable[[Path], object], line: str) -> None:
    damage(models)
    found = problems(models)
    assert any(re.search(line, problem) for problem in found), found
    assert all(" → " in problem for problem in found)


def test_ocr_weights_are_compared_with_the_routes_hash(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_model(models, "ocr")
    number: tuple[int, Sequence[int | str]] = (TensorProto.FLOAT, ["N", 1])
    for name in ("ocr_det", "ocr_rec"):
        write_model(models, name, "onnxruntime", None)
        save(models / name / "1/model.onnx", [], {"IN": number}, {"OUT": number})
    (models / "ocr_rec/route.toml").write_text(
        f'task = "ocr"\nnames = ["PP-OCRv5_mobile"]\nweights_sha256 = "{"0" * 64}"\n[[pipelines]]\nname = "ocr"\n'
        'types = ["detection", "recognition"]\nmodels = ["ocr_det", "ocr_rec"]\n'
    )
    found = problems(models)
    assert any("ocr_det and ocr_rec have other contents than weights_sha256 says" in line for line in found), found


@pytest.mark.parametrize(
    ("name", "fix"),
    [("ocr_rec", "immich-triton export ocr chooses what is faster here"), ("my_rec", "take a model of floats here")],
)
def test_a_model_of_bytes_is_told_where_the_cpu_computes_it_in_floats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fix: str
) -> None:
    models = tmp_path / "models"
    of_bytes(models / name / "1/model.onnx")
    (models / name / "config.pbtxt").write_text(config())

    def about_the_model() -> list[str]:
        return [line for line in problems(models) if name in line.partition(" → ")[0]]

    monkeypatch.setattr(cpus, "pair_bits", lambda: 32)
    assert about_the_model() == []
    monkeypatch.setattr(cpus, "pair_bits", lambda: 16)
    (line,) = about_the_model()
    assert line.startswith(f"warning: {name}: multiplies bytes (int8) for which this CPU has no instruction (VNNI)")
    assert line.endswith(f" → {fix}")
    replace(models / name / "config.pbtxt", "KIND_CPU", "KIND_GPU")
    assert about_the_model() == [], "a GPU computes it"
    replace(models / name / "config.pbtxt", "KIND_GPU", "KIND_CPU")
    of_bytes(models / name / "1/model.onnx", bits=16)
    assert about_the_model() == [], "no sum of its products is cut off"


def test_a_restored_repository_is_compared_with_its_archive(models: Path, tmp_path: Path) -> None:
    archive(models, tmp_path / "models.tar")
    there = tmp_path / "there"
    restore(tmp_path / "models.tar", there)
    assert "ok: hashes: every file is as it was archived" in [str(finding) for finding in check(there)]
    (there / "read_b/vocab.txt").write_text("[PAD]")
    replace(there / "see_b/config.pbtxt", "# test", "# edited")
    found = problems(there)
    assert len(found) == 2
    assert found[0].startswith("error: read_b/vocab.txt: changed since the repository was restored")
    assert found[1].startswith("warning: see_b/config.pbtxt: changed")


def test_a_folder_without_models_or_routes_is_told(tmp_path: Path) -> None:
    assert "error: " in problems(tmp_path / "missing")[0]
    (tmp_path / "empty").mkdir()
    assert "holds no model" in problems(tmp_path / "empty")[0]
    write_model(tmp_path / "models", "echo")
    assert any("no route: the gateway answers nothing" in line for line in problems(tmp_path / "models"))
