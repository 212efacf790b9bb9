"""What is checked before a start."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from immich_triton.server.preflight import (
    Port,
    StartError,
    check_executable,
    check_platform,
    check_ports,
    check_shared_memory,
    missing_files,
)


def test_a_folder_where_programs_may_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_executable(tmp_path)
    real = os.statvfs(tmp_path)
    fields = [real[index] | (os.ST_NOEXEC if index == 8 else 0) for index in range(10)]
    monkeypatch.setattr(os, "statvfs", lambda _folder: os.statvfs_result(fields))
    with pytest.raises(StartError, match=rf"{tmp_path} is mounted noexec.*--tmpfs /tmp:exec"):
        check_executable(tmp_path)


def test_this_machine_passes() -> None:
    check_platform()
    check_shared_memory(1)


@pytest.mark.parametrize(
    ("system", "machine", "libc", "says"),
    [
        ("Darwin", "arm64", "", "Linux on x86_64 only, this is Darwin arm64"),
        ("Linux", "aarch64", "glibc 2.39", "this is Linux aarch64"),
        ("Linux", "x86_64", "glibc 2.31", "this is glibc 2.31"),
        ("Linux", "x86_64", "", "glibc 2.35 or newer"),
    ],
)
def test_another_platform_is_sent_to_docker(system: str, machine: str, libc: str, says: str) -> None:
    with pytest.raises(StartError, match="docker compose") as refused:
        check_platform(system, machine, libc)
    assert says in str(refused.value)


def test_glibc_versions_are_compared_as_numbers() -> None:
    check_platform("Linux", "x86_64", "glibc 2.100")


def test_little_shared_memory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="--shm-size=1g"):
        check_shared_memory(1 << 40, tmp_path)


def test_no_shared_memory_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="shared memory"):
        check_shared_memory(1, tmp_path / "missing")


def test_one_port_for_two_purposes_is_refused() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    with pytest.raises(StartError, match="Triton and the gateway cannot share port"):
        check_ports([Port(number, "Triton", "…"), Port(number, "the gateway", "…")])


@pytest.mark.parametrize("number", [70000, -1])
def test_an_impossible_port_is_refused(number: int) -> None:
    with pytest.raises(StartError, match="choose"):
        check_ports([Port(number, "Triton", "choose another one")])


def test_a_model_with_another_file_name_is_complete(tmp_path: Path) -> None:
    (tmp_path / "det/1").mkdir(parents=True)
    (tmp_path / "det/1/net.onnx").touch()
    config = tmp_path / "det/config.pbtxt"
    config.write_text('backend: "onnxruntime"\ndefault_model_filename: "net.onnx"\n')
    assert missing_files(tmp_path / "det") is None
    config.write_text('backend: "onnxruntime"\n')
    assert "model.onnx is missing" in str(missing_files(tmp_path / "det"))


@pytest.mark.parametrize(
    ("name", "command"),
    [("ocr_rec", "export ocr"), ("cn_clip_vit_b_16_visual", "export clip"), ("face_det", "export faces")],
)
def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / name / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    assert f"immich-triton {command} makes it" in str(missing_files(tmp_path / name))


def test_a_pipeline_without_its_code_is_told_at_once(tmp_path: Path) -> None:
    """Triton reports it as loading for ever."""
    (tmp_path / "ocr/1").mkdir(parents=True)
    (tmp_path / "ocr/config.pbtxt").write_text('backend: "python"\n')
    assert "model.py is missing" in str(missing_files(tmp_path / "ocr"))
    (tmp_path / "ocr/1/model.py").touch()
    assert missing_files(tmp_path / "ocr") is None
