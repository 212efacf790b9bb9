"""``--gpu``: what is said of the cards, and what is refused. Nothing here goes on with the CPU in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from immich_triton.cli import gpu_environment, run, run_gpu, triton
from immich_triton.export.network_places import MIB
from immich_triton.server import graphics_cards
from immich_triton.server.graphics_cards import Card
from immich_triton.server.preflight import StartError

BIG = Card(0, "NVIDIA H100 80GB HBM3", "580.95.05", 81559, 4, (9, 0))
SMALL = Card(1, "NVIDIA GeForce GTX 1650", "580.95.05", 4096, 300, (7, 5))


def network(models: Path, name: str, kind: str, mebibytes: int = 0, shapes: str = "1x3 8x3", limit: int = 1000) -> None:
    (models / name / "1").mkdir(parents=True)
    (models / name / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "onnxruntime"\ninstance_group [ {{ kind: {kind} count: 1 }} ]\n'
        f'parameters {{ key: "shapes" value {{ string_value: "{shapes}" }} }}\n'
        f'parameters {{ key: "gpu_mem_limit" value {{ string_value: "{limit * MIB}" }} }}\n'
    )
    with (models / name / "1/model.onnx").open("wb") as file:
        file.truncate(mebibytes * MIB)


def test_a_card_that_cannot_compute_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Card(0, "Quadro P2000", "580.65.06", 5120, 0, (6, 1))
    monkeypatch.setattr(graphics_cards, "look", lambda: [BIG, old])
    with pytest.raises(StartError, match="Quadro P2000 is too old"):
        run_gpu.cards()
    monkeypatch.setattr(graphics_cards, "look", lambda: [BIG])
    assert run_gpu.cards() == [BIG]


def test_without_a_driver_nothing_is_exported_and_nothing_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    models = tmp_path / "models"
    network(models, "ocr_det", "KIND_GPU")
    given = ["--gpu", "--models", str(models), "--run-dir", str(tmp_path / "run")]
    assert run.main(given) == 1
    assert triton.main(given) == 1
    first, second = capsys.readouterr().err.splitlines()
    for line in (first, second.removeprefix("triton: ")):
        assert line.startswith(
            "error: there is no NVIDIA driver here (nvidia-smi was not found): install NVIDIA's driver"
        )
    assert [path.name for path in models.iterdir()] == ["ocr_det"]
    assert not list((tmp_path / "run").rglob("*.log"))


def test_networks_that_are_all_on_the_cpu_stop_the_start(tmp_path: Path) -> None:
    network(tmp_path, "ocr_det", "KIND_CPU")
    with pytest.raises(
        StartError, match=rf"no network in {tmp_path} is placed on a GPU: immich-triton export ocr --gpu"
    ):
        list(run_gpu.check([BIG], tmp_path))


def test_memory_that_does_not_hold_the_weights_stops_the_start(tmp_path: Path) -> None:
    network(tmp_path, "big", "KIND_GPU", 2000)
    assert list(run_gpu.check([BIG], tmp_path)) == []
    with pytest.raises(
        StartError, match=r"GTX 1650 has 3796 MiB free, and the weights of big alone take 4600 MiB: close"
    ):
        list(run_gpu.check([BIG, SMALL], tmp_path))


def test_memory_that_may_run_short_is_a_warning(tmp_path: Path) -> None:
    network(tmp_path, "big", "KIND_GPU", 100, limit=4000)
    (sentence,) = run_gpu.check([SMALL], tmp_path)
    assert "has 3796 MiB free, and big may take up to 4600 MiB" in sentence
    unknown = Card(0, "NVIDIA GB10", "580.95.05", None, None)
    assert list(run_gpu.check([unknown], tmp_path)) == []


def test_more_sessions_than_the_table_is_meant_for_are_a_warning(tmp_path: Path) -> None:
    network(tmp_path, "many", "KIND_GPU", shapes=" ".join(f"{batch}x3" for batch in range(1, 42)))
    (sentence,) = run_gpu.check([BIG], tmp_path)
    assert "41 sessions are made at the start, more than the 40" in sentence


def test_it_is_said_which_card_serves_what_and_what_stays_on_the_cpu(tmp_path: Path) -> None:
    network(tmp_path, "ocr_det", "KIND_GPU")
    network(tmp_path, "face_det_buffalo_l", "KIND_CPU")
    network(tmp_path, "own", "KIND_CPU")
    assert list(run_gpu.summary([BIG], tmp_path)) == [
        "  GPU 0            NVIDIA H100 80GB HBM3, 79.6 GiB, driver 580.95.05: ocr_det",
        (
            "  CPU              face_det_buffalo_l: exported without --gpu; immich-triton export faces PACK --gpu "
            "--accept-license moves it"
        ),
        "  CPU              own",
    ]


def test_ocr_is_exported_anew_with_the_version_and_names_it_had(tmp_path: Path) -> None:
    assert run_gpu.export_arguments(tmp_path) == ["--gpu"]
    assert not run_gpu.ocr_on_cpu(tmp_path)
    network(tmp_path, "ocr_rec", "KIND_CPU")
    (tmp_path / "ocr_rec/export.json").write_text(json.dumps({"version": "v5", "names": ["a", "b"]}))
    assert run_gpu.ocr_on_cpu(tmp_path)
    assert run_gpu.export_arguments(tmp_path) == ["--gpu", "--version", "v5", "--as", "a", "b"]


def test_what_starts_triton_alone_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network(tmp_path, "big", "KIND_GPU", 100, limit=4000)
    monkeypatch.setattr(graphics_cards, "look", lambda: [SMALL])
    warning, line = run_gpu.before_start(tmp_path, gpu=True)
    assert warning.startswith("warning: ")
    assert line.endswith("driver 580.95.05: big")


def test_without_the_flag_what_needs_it_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network(tmp_path, "ocr_det", "KIND_GPU")
    network(tmp_path, "ocr_rec", "KIND_CPU")
    monkeypatch.setattr(gpu_environment, "runtime", lambda: None)
    (sentence,) = run_gpu.before_start(tmp_path, gpu=False)
    assert sentence.startswith("warning: exported for a GPU, ocr_det cannot be loaded here: start with --gpu, or")
    monkeypatch.setattr(gpu_environment, "runtime", lambda: "1.31.1")
    assert run_gpu.before_start(tmp_path, gpu=False) == []
