"""What ``doctor`` finds of the card, with recorded answers of nvidia-smi."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from immich_triton.cli import environment, gpu_environment
from immich_triton.cli.gpu_diagnosis import graphics
from immich_triton.export.network_places import MIB

H100 = "0, NVIDIA H100 80GB HBM3, {driver}, {memory}, 4\n"


def smi(driver: str = "580.95.05", memory: int = 81559) -> Callable[[Sequence[str]], str]:
    return lambda command: "0, 9.0\n" if "compute" in command[1] else H100.format(driver=driver, memory=memory)


def missing(command: Sequence[str]) -> str:
    raise FileNotFoundError(command[0])


@pytest.fixture(autouse=True)
def no_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_environment, "runtime", lambda: None)
    monkeypatch.setattr(environment, "GPU_LOCK", tmp_path / "no.lock")


def network(models: Path, name: str, kind: str, mebibytes: int = 10) -> None:
    (models / name / "1").mkdir(parents=True)
    (models / name / "config.pbtxt").write_text(
        f'backend: "onnxruntime"\ninstance_group [ {{ kind: {kind} }} ]\n'
        'parameters { key: "shapes" value { string_value: "1x3 8x3" } }\n'
        f'parameters {{ key: "gpu_mem_limit" value {{ string_value: "{1000 * MIB}" }} }}\n'
    )
    with (models / name / "1/model.onnx").open("wb") as file:
        file.truncate(mebibytes * MIB)


def test_without_a_card_and_without_need_there_is_a_note(tmp_path: Path) -> None:
    network(tmp_path, "ocr_det", "KIND_CPU")
    (found,) = graphics(tmp_path, missing)
    assert (found.level, found.text) == (
        "note",
        "no GPU is used: there is no NVIDIA driver here (nvidia-smi was not found)",
    )
    assert [each.level for each in graphics(tmp_path / "missing", missing)] == ["note"]


def test_without_a_card_what_is_placed_there_is_an_error(tmp_path: Path) -> None:
    network(tmp_path, "ocr_det", "KIND_GPU")
    (found,) = graphics(tmp_path, missing)
    assert found.level == "error"
    assert found.text.startswith("ocr_det: placed on a GPU, and there is no NVIDIA driver here")
    assert found.fix.endswith("or export again without --gpu")


def test_a_card_with_its_driver_its_memory_and_which_network_runs_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(tmp_path, "ocr_det", "KIND_GPU")
    network(tmp_path, "face_det_x", "KIND_CPU")
    monkeypatch.setattr(gpu_environment, "runtime", lambda: "1.31.1")
    assert [(found.level, found.text) for found in graphics(tmp_path, smi())] == [
        ("ok", "GPU 0: NVIDIA H100 80GB HBM3, 79.6 GiB, driver 580.95.05, 4 MiB in use"),
        ("ok", "ONNX Runtime for GPUs 1.31.1"),
        (
            "note",
            "face_det_x runs on the CPU (immich-triton export faces PACK --gpu --accept-license would change that)",
        ),
        ("ok", "ocr_det runs on the GPU: 2 shapes, 620 to 1600 MiB"),
    ]


def test_a_driver_that_is_too_old_matters_where_a_network_needs_it(tmp_path: Path) -> None:
    network(tmp_path / "cpu", "ocr_det", "KIND_CPU")
    network(tmp_path / "gpu", "ocr_det", "KIND_GPU")
    assert [found.level for found in graphics(tmp_path / "cpu", smi("535.10"))] == ["note", "note"]
    found = next(iter(graphics(tmp_path / "gpu", smi("535.10"))))
    assert (found.level, found.text) == ("error", "GPU 0: the driver 535.10 is too old for CUDA 13")
    assert found.fix == "install 580 or later, or leave --gpu out"


@pytest.mark.parametrize(("memory", "level"), [(400, "error"), (1200, "warning"), (2000, None)])
def test_memory_that_is_too_small(tmp_path: Path, memory: int, level: str | None) -> None:
    network(tmp_path, "ocr_det", "KIND_GPU")
    found = [
        each.level for each in graphics(tmp_path, smi(memory=memory)) if "may take" in each.text or "weigh" in each.text
    ]
    assert found == ([level] if level else [])


def test_the_package_that_is_lacking_is_an_error_where_a_network_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(tmp_path, "ocr_det", "KIND_GPU")
    (found,) = [each for each in graphics(tmp_path, smi()) if "ONNX" in each.text]
    assert (found.level, found.fix) == ("error", "immich-triton setup --gpu, then immich-triton run --gpu")
    (found,) = [each for each in graphics(tmp_path / "none", smi()) if "could be used" in each.text]
    assert found.level == "note"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(environment, "GPU_LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text("#\n")
    made = environment.folder(tmp_path / "lock")
    made.mkdir(parents=True)
    environment.mark_ready(made)
    (found,) = [each for each in graphics(tmp_path, smi()) if "ONNX" in each.text]
    assert (found.level, str(made) in found.text) == ("ok", True)
