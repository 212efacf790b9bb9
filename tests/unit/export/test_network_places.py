"""Which network runs where, read out of its config."""

from __future__ import annotations

from pathlib import Path

from immich_triton.export import network_places
from immich_triton.export.network_places import MIB, PROCESS_MIB, Place, places
from immich_triton.export.ocr import models as ocr_models


def write(models: Path, name: str, config: str, mebibytes: int = 0) -> None:
    (models / name / "1").mkdir(parents=True)
    (models / name / "config.pbtxt").write_text(config)
    with (models / name / "1/model.onnx").open("wb") as file:
        file.truncate(mebibytes * MIB)


def test_networks_are_told_from_pipelines_and_by_their_place(tmp_path: Path) -> None:
    gpu, cpu = ocr_models.Placement(1, 0, gpu=True), ocr_models.Placement(2, 1)
    write(tmp_path, "ocr_det", ocr_models.detector_config("PP-OCR", gpu, 5 * MIB), 5)
    write(tmp_path, "ocr_rec", ocr_models.recognizer_config("PP-OCR", cpu, 9 * MIB), 9)
    write(tmp_path, "ocr", 'backend: "python" instance_group [ { kind: KIND_CPU } ]')
    write(tmp_path, "own", 'backend: "onnxruntime"\n# not KIND_CPU\ninstance_group [ { kind: KIND_GPU } ]', 100)
    write(tmp_path, ".new", 'backend: "onnxruntime"')
    (tmp_path / "no model").mkdir()
    detector, recognizer, own = places(tmp_path)
    assert (detector.name, detector.gpu, detector.sessions) == ("ocr_det", True, 9)
    assert detector.least == 9 * 5 + PROCESS_MIB
    assert detector.most == int(9 * 5 * 1.25) + 1024 + PROCESS_MIB
    assert recognizer == Place("ocr_rec", gpu=False)
    assert own == Place("own", True, 1, 100 + PROCESS_MIB, 100 + PROCESS_MIB)
    assert network_places.names([detector, own]) == "ocr_det, own"


def test_the_names_of_the_networks_are_those_of_the_export() -> None:
    assert (network_places.DETECTOR, network_places.RECOGNIZER) == (ocr_models.DETECTOR, ocr_models.RECOGNIZER)


def test_each_of_our_networks_has_a_command_that_moves_it() -> None:
    for name, command in (("ocr_rec", "ocr"), ("cn_clip_vit_b_16_visual", "clip"), ("face_det_buffalo_l", "faces")):
        assert f"export {command} " in (network_places.how_to_move(name) or "")
    assert network_places.how_to_move("own") is None
