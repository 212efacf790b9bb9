"""``--gpu`` goes on in the environment with ONNX Runtime for GPUs, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immich_triton.cli import environment, gpu_environment, main


class EnteredError(Exception):
    """This interpreter would be another one now."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the environment, which is not there yet; this interpreter has ONNX Runtime for CPUs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv(gpu_environment.INSIDE, raising=False)
    monkeypatch.setattr(gpu_environment, "runtime", lambda: None)
    monkeypatch.setattr(environment, "GPU_LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text("#\n")
    return environment.folder(environment.GPU_LOCK)


def enter_it(made: Path) -> None:
    made.mkdir(parents=True)
    environment.mark_ready(made)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (["run", "--gpu"], True),
        (["triton", "--gpu"], True),
        (["run"], False),
        (["export ocr", "--gpu"], False),
        (["setup", "--gpu"], False),
    ],
)
def test_it_is_for_the_commands_that_compute(line: list[str], wanted: bool) -> None:
    assert gpu_environment.wanted(line[0], line[1:]) == wanted


def test_without_it_nothing_goes_on(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--gpu"]) == 2
    said = capsys.readouterr().err
    assert said == "immich-triton run: ONNX Runtime for GPUs is not installed; run: immich-triton setup --gpu\n"
    assert not made.exists()


def test_the_command_goes_on_in_it_and_only_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_it(made)

    def become(python: Path, command: list[str], variables: dict[str, str]) -> None:
        assert command == [str(python), "-m", "immich_triton", "run", "--gpu"]
        assert python == made / "bin/python"
        monkeypatch.setenv(gpu_environment.INSIDE, variables[gpu_environment.INSIDE])
        raise EnteredError

    monkeypatch.setattr(os, "execve", become)
    with pytest.raises(EnteredError):
        main.main(["run", "--gpu"])
    assert "is not installed" in (gpu_environment.enter(["run", "--gpu"]) or ""), "it lacks it in there too"


def test_an_interpreter_that_has_it_stays(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_environment, "runtime", lambda: "1.31.1")
    assert gpu_environment.enter(["run", "--gpu"]) is None


def test_this_interpreter_is_asked_by_the_name_of_the_package() -> None:
    assert gpu_environment.runtime() is None  # the project's own environment is for CPUs
