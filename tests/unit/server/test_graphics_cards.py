"""What nvidia-smi says (recorded in its words), and what follows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from places import PROJECT

from immich_triton.server import graphics_cards
from immich_triton.server.graphics_cards import Card, look, unfit
from immich_triton.server.preflight import StartError

H100 = "0, NVIDIA H100 80GB HBM3, 580.95.05, 81559, 4\n"
TWO = "0, NVIDIA GeForce RTX 3060, 580.65.06, 12288, 401\n1, Quadro P2000, 580.65.06, 5120, 0\n"


def smi(answer: str, compute: str = "", code: int = 0) -> Callable[[Sequence[str]], str]:
    def ask(command: Sequence[str]) -> str:
        assert command[0] == "nvidia-smi"
        assert command[2] == "--format=csv,noheader,nounits"
        if "compute_cap" in command[1]:
            if not compute:
                raise subprocess.CalledProcessError(
                    2, list(command), 'Field "compute_cap" is not a valid field to query.'
                )
            return compute
        if code:
            raise subprocess.CalledProcessError(code, list(command), answer, "")
        return answer

    return ask


def test_a_card_is_named_with_its_driver_and_memory() -> None:
    (card,) = look(smi(H100, "0, 9.0\n"))
    assert card == Card(0, "NVIDIA H100 80GB HBM3", "580.95.05", 81559, 4, (9, 0))
    assert str(card) == "NVIDIA H100 80GB HBM3, 79.6 GiB, driver 580.95.05"
    assert card.free == 81555
    assert unfit(card) is None


def test_several_cards_each_have_their_own_age() -> None:
    new, old = look(smi(TWO, "0, 8.6\n1, 6.1\n"))
    assert unfit(new) is None
    assert unfit(old) == ("Quadro P2000 is too old for CUDA 13 (compute capability 6.1, it takes 7.5): leave --gpu out")


def test_a_driver_that_is_too_old_is_named() -> None:
    (card,) = look(smi("0, Tesla T4, 470.256.02, 15109, 0\n"))
    assert card.compute is None
    assert unfit(card) == ("the driver 470.256.02 is too old for CUDA 13: install 580 or later, or leave --gpu out")


def test_memory_that_the_driver_does_not_tell_is_unknown() -> None:
    (card,) = look(smi("0, NVIDIA GB10, 580.95.05, [N/A], [N/A]\n", "0, 12.1\n"))
    assert (card.memory, card.used, card.free) == (None, None, None)
    assert str(card) == "NVIDIA GB10, driver 580.95.05"


NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (smi(NO_DRIVER, code=9), r"nvidia-smi failed \(NVIDIA-SMI has failed because it .* install NVIDIA's"),
        (smi("Failed to initialize NVML: Driver/library version mismatch\n", code=18), r"\(Failed to initialize NVML"),
        (smi("No devices were found\n", code=6), r"nvidia-smi failed \(No devices were found\)"),
        (smi("No devices were found\n"), "the NVIDIA driver finds no card"),
        (smi(""), "the NVIDIA driver finds no card"),
    ],
)  # fmt: skip
def test_without_a_card_that_works_it_is_said_in_one_sentence(
    ask: Callable[[Sequence[str]], str], sentence: str
) -> None:
    with pytest.raises(StartError, match=sentence) as caught:
        look(ask)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("or leave --gpu out")


def test_a_driver_that_hangs_is_not_waited_for() -> None:
    def ask(command: Sequence[str]) -> str:
        raise subprocess.TimeoutExpired(list(command), 20)

    with pytest.raises(StartError, match="does not answer within 20 s: the driver hangs"):
        look(ask)


def test_without_nvidia_smi_there_is_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=r"there is no NVIDIA driver here \(nvidia-smi was not found\)"):
        look()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 0, Card, 580.1, 1, 1\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (card,) = look()
    assert (card.name, card.driver) == ("Card", "580.1")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'cannot open shared object file' >&2; exit 12\n")
    with pytest.raises(StartError, match=r"nvidia-smi failed \(cannot open shared object file\)"):
        look()


def test_the_least_driver_is_that_of_the_cuda_in_the_lock() -> None:
    lock = (PROJECT / "requirements-gpu.lock").read_text(encoding="utf-8")
    assert re.findall(r"^nvidia-cudnn-cu(\d+)==", lock, re.MULTILINE) == ["13"], "LEAST_DRIVER and LEAST_COMPUTE too"
    assert graphics_cards.LEAST_DRIVER == 580
