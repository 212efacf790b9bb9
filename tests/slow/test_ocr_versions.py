"""Every PP-OCR version: exported, described, and read with as RapidOCR reads with it."""

from __future__ import annotations

from pathlib import Path

import ocr_export_checks
import ocr_exports
import onnx
import pytest
from ocr_parity import IMAGES, Readers
from onnx import TensorProto
from triton.config_rules import check_config

from immich_triton.cli import export_ocr
from immich_triton.export.ocr import models as ocr_models
from immich_triton.export.ocr.sources import VERSIONS

# One worker makes the exports.
pytestmark = pytest.mark.xdist_group("triton")
OTHERS = [version for version in VERSIONS if version not in ocr_exports.DEFAULTS]


def test_there_are_others() -> None:
    assert OTHERS


@pytest.fixture(scope="module", params=OTHERS)
def exported(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, ocr_exports.build(request.param)


def test_it_is_described(exported: tuple[str, Path]) -> None:
    version, models = exported
    ocr_export_checks.expect_networks(models)
    ocr_export_checks.expect_dictionary(version, models)
    ocr_export_checks.expect_route(models)
    ocr_export_checks.expect_record(version, models)


@pytest.fixture(scope="module", params=VERSIONS)
def readers(request: pytest.FixtureRequest) -> Readers:
    return Readers.of(request.param)


@pytest.mark.parametrize("name", IMAGES)
def test_texts_and_boxes_are_those_of_rapidocr(readers: Readers, name: str) -> None:
    readers.compare(name)


def test_the_width_of_the_padding_moves_spaces_at_most(readers: Readers) -> None:
    readers.compare_widths("zh_receipt.jpg")


# Half precision, for a GPU


def halved(version: str, models: Path) -> int:
    return export_ocr.main(["--gpu", "--precision", "f16", "--version", version, "--models", str(models)])


def test_the_default_for_a_gpu_can_be_exported_in_half_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    assert halved(ocr_models.default_version(gpu=True), models) == 0
    assert capsys.readouterr().out.count("in half precision: ") == 2
    for name in (ocr_models.DETECTOR, ocr_models.RECOGNIZER):
        graph = onnx.load(models / name / "1/model.onnx", load_external_data=False).graph
        kinds = {tensor.data_type for tensor in graph.initializer if tensor.dims}
        assert TensorProto.FLOAT16 in kinds
        assert TensorProto.FLOAT not in kinds
        config = (models / name / "config.pbtxt").read_text(encoding="utf-8")
        assert check_config(config) == []
        assert "in half precision" in config
    assert halved(ocr_models.default_version(gpu=True), models) == 0
    assert "up to date" in capsys.readouterr().out


def test_a_version_that_does_not_bear_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert halved("v5", tmp_path / "models") == 1
    assert "export this version without --precision f16" in capsys.readouterr().out
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
