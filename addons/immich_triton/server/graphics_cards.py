"""The NVIDIA cards of this machine, as ``nvidia-smi`` tells of them, and what makes one unfit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from immich_triton.server.preflight import StartError

LEAST_DRIVER: Final = 580
"""The first branch of the driver that runs CUDA 13, which requirements-gpu.lock brings."""
LEAST_COMPUTE: Final = (7, 5)
"""Compute capability of the oldest cards that CUDA 13 knows: Turing (RTX 20, GTX 16, T4)."""
SECONDS: Final = 20
"""How long nvidia-smi may take; without the persistence daemon it wakes the card first."""
INSTALL: Final = "install NVIDIA's driver (580 or later), and in a container give it the card (--gpus all)"
WITHOUT: Final = "or leave --gpu out"


@dataclass(frozen=True)
class Card:
    """One card; memory in MiB, None where the driver does not say."""

    index: int
    name: str
    driver: str
    memory: int | None
    used: int | None
    compute: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Name it as a person would."""
        memory = f", {self.memory / 1024:.1f} GiB" if self.memory else ""
        return f"{self.name}{memory}, driver {self.driver}"

    @property
    def free(self) -> int | None:
        """MiB that nobody uses."""
        return None if self.memory is None or self.used is None else self.memory - self.used


Ask = Callable[[Sequence[str]], str]
"""Runs a command line and returns what it prints. Raises OSError, or `subprocess.SubprocessError`."""


def ask(command: Sequence[str]) -> str:
    """Run *command*; see `Ask`."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, list(command), done.stdout, done.stderr)
    return done.stdout


def look(ask: Ask = ask) -> list[Card]:
    """Return the cards. Raises `StartError` with one sentence where there is no driver, or no card that it finds."""
    try:
        lines = _query(ask, "index,name,driver_version,memory.total,memory.used")
    except FileNotFoundError as error:
        raise StartError(f"there is no NVIDIA driver here (nvidia-smi was not found): {INSTALL}, {WITHOUT}") from error
    except subprocess.TimeoutExpired as error:
        raise StartError(
            f"nvidia-smi does not answer within {SECONDS} s: the driver hangs; restart the machine, {WITHOUT}"
        ) from error
    except (subprocess.SubprocessError, OSError) as error:
        raise StartError(f"nvidia-smi failed ({_reason(error)}): {INSTALL}, {WITHOUT}") from error
    cards = [card for line in lines if (card := _card(line))]
    if not cards:
        raise StartError(f"the NVIDIA driver finds no card: {INSTALL}, {WITHOUT}")
    return _with_compute(cards, ask)


def unfit(card: Card) -> str | None:
    """Return in one sentence why *card* cannot be used, and what to do; None when it can."""
    branch = re.match(r"\d+", card.driver)
    if branch and int(branch[0]) < LEAST_DRIVER:
        return f"the driver {card.driver} is too old for CUDA 13: install {LEAST_DRIVER} or later, {WITHOUT}"
    if card.compute and card.compute < LEAST_COMPUTE:
        have, need = (".".join(map(str, version)) for version in (card.compute, LEAST_COMPUTE))
        return f"{card.name} is too old for CUDA 13 (compute capability {have}, it takes {need}): leave --gpu out"
    return None


def _query(ask: Ask, fields: str) -> list[str]:
    lines = ask(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _card(line: str) -> Card | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != 5 or not parts[0].isdecimal():
        return None  # "No devices were found", which some drivers say with exit code 0
    memory, used = (int(part) if part.isdecimal() else None for part in parts[3:])
    return Card(int(parts[0]), parts[1], parts[2], memory, used)


def _with_compute(cards: list[Card], ask: Ask) -> list[Card]:
    try:
        lines = _query(ask, "index,compute_cap")
    except (subprocess.SubprocessError, OSError):
        return cards  # a driver that does not know the field, and is too old anyway
    found = {}
    for line in lines:
        if match := re.fullmatch(r"(\d+), *(\d+)\.(\d+)", line):
            found[int(match[1])] = int(match[2]), int(match[3])
    return [Card(card.index, card.name, card.driver, card.memory, card.used, found.get(card.index)) for card in cards]


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = " ".join(f"{error.stdout or ''} {error.stderr or ''}".split())
        return said[:200] or f"exit code {error.returncode}"
    return str(error)
