"""``export_clip.py``: names, weights, what it refuses, and the proof that an export equals the original."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import clip_standins
import numpy as np
import pytest
from clip_standins import MODELS, SEED, ClipStandins
from embedded_triton import StartTriton

from harness.ports import free_ports
from immich_triton.cli import export_clip
from immich_triton.core.command import COMMAND
from immich_triton.core.paths import PROJECT
from immich_triton.export.clip import environment as clip_environment
from immich_triton.export.clip import repository as clip_repository
from immich_triton.export.clip.models import CLIP_MODELS
from immich_triton.immich.clip_names import names_of
from immich_triton.ml.routes import load_routes

# The first test that needs the stand-ins makes them.
pytestmark = pytest.mark.timeout(2400)
openvino = importlib.import_module("openvino")
onnxruntime = importlib.import_module("onnxruntime")
ENGINES = ("onnxruntime", "openvino")
OPENVINO_ALONE: Final = re.compile(r"key: \"(embedded_accelerator|shapes)\"")


# Names and sizes


@pytest.mark.parametrize("name", ["ViT-L-14__openai", "my-own-model"])
def test_a_name_that_does_not_fit_is_refused_with_those_that_do(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_clip.main(["ViT-B-16", "--as", name, "--models", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert name in error
    assert "512 numbers" in error
    for fitting in names_of(512):
        assert fitting in error
    assert not any(tmp_path.iterdir())


def test_a_name_that_another_model_has_is_refused(clip_standins: ClipStandins) -> None:
    with pytest.raises(clip_repository.ClipNameError, match="already answers for RN50__openai"):
        clip_repository.check_names(CLIP_MODELS["ViT-H-14"], ["RN50::openai"], clip_standins.models)
    # The model's own route is not in its way: an export can be repeated.
    assert clip_repository.check_names(CLIP_MODELS["RN50"], ["RN50::openai"], clip_standins.models) == ["RN50__openai"]


# Weights


def test_offline_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/clip_cn_rn50.pt"
    assert export_clip.main(["RN50", "--weights-url", url, "--models", str(tmp_path / "models")]) == 1
    error = capsys.readouterr().err
    assert "cannot be downloaded" in error
    assert "--weights FILE" in error
    assert CLIP_MODELS["RN50"].url in error
    assert not (tmp_path / "models").exists()


def test_a_weights_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_clip.main(["RN50", "--weights", str(tmp_path / "no.pt"), "--models", str(tmp_path / "models")]) == 1
    assert "no.pt does not exist" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    weights = tmp_path / "page.pt"
    weights.write_text("<html>404</html>")
    arguments = ["RN50", "--weights", str(weights), "--models", str(tmp_path / "models")]
    done = subprocess.run([*COMMAND, "export", "clip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is no Chinese-CLIP checkpoint" in done.stderr
    assert "nothing was written" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path != weights] == ["models"]
    assert not any((tmp_path / "models").iterdir())


# The environment


def test_without_python_3_11_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(clip_environment.EnvironmentSetupError, match=r"uv python install 3\.11"):
        clip_environment.ensure()


# The proof, on small models


@pytest.fixture(scope="module")
def checks() -> dict[str, Any]:
    """What ``clip_export_checks.py`` found; with ``folder``, the one in which its exports lie."""
    results, folder = clip_standins.checked()
    return {**results, "folder": folder}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("model", ["RN50", "ViT-B-16"])
def test_both_precisions_pass_the_proof(model: str, precision: str, checks: dict[str, Any]) -> None:
    result = checks[f"{model} {precision}"]
    parity = result["parity"]
    assert result["passed"]
    assert parity["passed"]
    assert [(row["kind"], row["batch"], row["items"]) for row in parity["rows"]] == [
        ("image", 1, 32),
        ("image", 8, 32),
        ("text", 1, 64),
        ("text", 8, 64),
    ]
    limit = {"fp32": 0.9999, "fp16": 0.999}[precision]
    assert parity["limit"] == limit
    for row in parity["rows"]:
        assert row["lowest_cosine"] >= limit
        assert row["largest_length_error"] < 1e-5
    assert parity["transform_max_difference"] <= 1e-5
    assert parity["texts_with_other_tokens"] == 0
    assert result["files"] == ["model.onnx"]
    assert result["input"] == ["batch", 3, 224, 224]
    dimension = CLIP_MODELS[model].dimension
    assert result["outputs"] == {"EMBEDDING": ["batch", dimension], "FINGERPRINT": ["batch", 1]}
    assert ("FLOAT16" in result["types"]) == (precision == "fp16")


@pytest.mark.parametrize("spoilt", ["image embedding", "text embedding", "nan", "pixel", "token"])
def test_the_proof_notices(spoilt: str, checks: dict[str, Any]) -> None:
    assert checks["spoilt"]["nothing"] is True
    assert checks["spoilt"][spoilt] is False


def test_weights_come_out_of_a_checkpoint_as_they_went_in(checks: dict[str, Any]) -> None:
    assert checks["checkpoint"]["largest_difference"] == 0.0


@pytest.mark.parametrize(
    ("file", "reason"), [("other", "does not hold a ViT-B-16"), ("empty", "no state_dict"), ("text", "is no")]
)
def test_what_is_no_checkpoint_of_the_model_is_refused(file: str, reason: str, checks: dict[str, Any]) -> None:
    assert reason in checks["checkpoint"]["refused"][file]


def test_random_weights_depend_on_their_seed_alone(checks: dict[str, Any]) -> None:
    first, again, other = checks["seeds"]
    assert first == again != other


# Weights in a file beside the graph, as models over 2 GiB need it


def test_external_data_equals_data_inside(checks: dict[str, Any]) -> None:
    result = checks["external"]
    assert result["passed"]
    assert result["files"] == ["model.onnx", "model.onnx.data"]
    outside = checks["folder"] / result["folder"] / "visual/1/model.onnx"
    inside = checks["folder"] / checks["ViT-B-16 fp32"]["folder"] / "visual/1/model.onnx"
    assert outside.stat().st_size < 1_000_000 < outside.with_suffix(".onnx.data").stat().st_size
    image = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    np.testing.assert_array_equal(_with_onnxruntime(outside, image), _with_onnxruntime(inside, image))
    np.testing.assert_allclose(_with_openvino(outside, image), _with_onnxruntime(inside, image), atol=1e-5)


def _with_onnxruntime(path: Path, image: Any) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["EMBEDDING"], {"IMAGE": image})[0]


def _with_openvino(path: Path, image: Any) -> Any:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([image])["EMBEDDING"]


@pytest.fixture(scope="module")
def external_encoder(
    checks: dict[str, Any], triton_server: StartTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Triton over the small model with external data, once for either engine of the embedded backend."""
    models = tmp_path_factory.mktemp("external") / "models"
    exported = checks["folder"] / checks["external"]["folder"]
    record = {"precision": "fp32", "untrained": True, "weights": {"sha256": "0" * 64}, "fingerprint": 2**31 - 1}
    spec = CLIP_MODELS["ViT-B-16"]
    clip_repository.write(models, spec, exported, [spec.immich_name], record)
    (models / spec.visual).rename(models / "onnxruntime")
    shutil.copytree(models / "onnxruntime", models / "openvino")
    for engine in ENGINES:
        config = models / engine / "config.pbtxt"
        text = config.read_text().replace(spec.visual, engine)
        if engine == "onnxruntime":
            text = "".join(line for line in text.splitlines(keepends=True) if not OPENVINO_ALONE.search(line))
        config.write_text(text)
    for other in (spec.textual, *clip_repository.PIPELINES):
        shutil.rmtree(models / other)
    with triton_server(models) as server:
        yield server.url, exported / "visual/1/model.onnx"


@pytest.mark.parametrize("engine", ENGINES)
def test_external_data_in_the_embedded_triton(engine: str, external_encoder: tuple[str, Path]) -> None:
    client_module = importlib.import_module("tritonclient.http")
    url, path = external_encoder
    image = np.random.default_rng(1).normal(size=(3, 3, 224, 224)).astype(np.float32)
    tensor = client_module.InferInput("IMAGE", list(image.shape), "FP32")
    tensor.set_data_from_numpy(image)
    with client_module.InferenceServerClient(url.removeprefix("http://")) as client:
        answer = client.infer(engine, [tensor])
    np.testing.assert_allclose(answer.as_numpy("EMBEDDING"), _with_onnxruntime(path, image), atol=1e-5)
    assert answer.as_numpy("FINGERPRINT").tolist() == [[2**31 - 1]] * 3


# What a whole export leaves


@pytest.mark.parametrize("model", MODELS)
def test_what_an_export_leaves(model: str, clip_standins: ClipStandins) -> None:
    spec = CLIP_MODELS[model]
    route = load_routes(clip_standins.models).find("clip", spec.immich_name)
    assert route is not None
    assert route.untrained
    assert route.dimension == spec.dimension
    assert route.pipeline("visual").parameters == {"encoder": spec.visual}
    assert route.pipeline("textual").models == (spec.textual,)
    visual, textual = (
        json.loads((clip_standins.models / name / "export.json").read_text()) for name in (spec.visual, spec.textual)
    )
    assert visual == textual
    assert visual["weights"] == {"sha256": route.weights_sha256, "basis": f"random, seed {SEED}"}
    assert visual["parity"]["passed"]
    assert visual["versions"].keys() >= {"torch", "cn-clip", "onnx", "onnxruntime"}
    assert 0 < visual["fingerprint"] < 2**31
    assert {pipeline.fingerprint for pipeline in route.pipelines} == {visual["fingerprint"]}
    assert f"fingerprint = {visual['fingerprint']}" in route.source.read_text()
    assert (clip_standins.models / spec.textual / "vocab.txt").read_bytes().count(b"\n") >= 21_127
    for name in (spec.visual, spec.textual):
        graph = clip_standins.models / name / "1/model.onnx"
        # Triton may be another user.
        assert graph.with_suffix(".onnx.data").stat().st_mode == graph.stat().st_mode


def test_no_config_enables_tritons_response_cache(clip_standins: ClipStandins) -> None:
    configs = [*PROJECT.glob("triton_models/*/config.pbtxt"), *clip_standins.models.glob("*/config.pbtxt")]
    assert len(configs) >= 6
    assert [path for path in configs if "response_cache" in path.read_text()] == []
    assert "--cache-config" not in "".join(path.read_text() for path in PROJECT.glob("addons/**/*.py"))
