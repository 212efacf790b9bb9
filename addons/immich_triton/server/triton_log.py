"""Triton's log: what of it a person at the terminal wants to see."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

# I1122 09:27:08.907652 18872 model_lifecycle.cc:839] "successfully loaded 'echo'"
LINE = re.compile(r"(?P<level>[IWEF])\d{4} [\d:.]+ \d+ (?P<place>\S+?)\]\s+(?P<text>.*)")
LOADED = re.compile(r"successfully loaded '(?P<model>.+)'")
FAILED = (
    re.compile(r"failed to load '(?P<model>.+?)' version \d+: (?P<reason>.*)", re.DOTALL),
    re.compile(r"failed to load model '(?P<model>.+?)': (?P<reason>.*)", re.DOTALL),
    re.compile(r"Poll failed for model directory '(?P<model>.+?)': (?P<reason>.*)", re.DOTALL),
)
# Said by the C++ backend when it is initialised, by ours for each model.
CPP_BACKEND = "TRITONBACKEND_Initialize: onnxruntime"
OUR_BACKEND = "served by the embedded Python-based backend"
UNHEALTHY = re.compile(r"Stub process '(?P<instance>[^']+)' is not healthy")

NOISE = (
    # A machine without an NVIDIA GPU.
    "CudaDriverHelper has not been initialized",
    "Unable to allocate pinned system memory",
    "DCGM unable to start",
    # Said again, with the model's name, when loading fails.
    "failed to load all models",
    "Failed to create instance",
)


class Kind(Enum):
    """What a line of the log tells."""

    LOADED = auto()
    FAILED = auto()
    BACKEND = auto()
    UNHEALTHY = auto()
    WARNING = auto()
    ERROR = auto()


@dataclass(frozen=True)
class Event:
    """One noteworthy line; ``text`` is the reason, the message, or the file of the ONNX backend.

    ``model`` is set for LOADED and FAILED, for UNHEALTHY it is the instance whose process that is.
    """

    kind: Kind
    text: str = ""
    model: str = ""


def interpret(line: str) -> Event | None:
    """Return what *line* tells, or None when it need not leave the file."""
    match = LINE.match(line)
    if not match:
        return None
    text = _unquote(match["text"])
    if loaded := LOADED.match(text):
        return Event(Kind.LOADED, model=loaded["model"])
    if text == CPP_BACKEND or OUR_BACKEND in text:
        return Event(Kind.BACKEND, "model.py" if OUR_BACKEND in text else "libtriton_onnxruntime.so")
    if match["level"] == "I" or any(noise in text for noise in NOISE):
        return None
    for pattern in FAILED:
        if failed := pattern.match(text):
            return Event(Kind.FAILED, short_reason(failed["reason"], failed["model"]), failed["model"])
    if unhealthy := UNHEALTHY.search(text):
        return Event(Kind.UNHEALTHY, short_reason(text), unhealthy["instance"])
    return Event(Kind.WARNING if match["level"] == "W" else Kind.ERROR, short_reason(text))


def short_reason(text: str, model: str = "") -> str:
    """Return the first line of Triton's *text* without its wrapping: status, exception class, traceback."""
    text = text.split("\n\nAt:")[0].strip().split("\n")[0]
    for wrapping in ("Internal: ", "Invalid argument: ", "TritonModelException: ", f"model {model}: "):
        text = text.removeprefix(wrapping)
    return text if len(text) <= 400 else text[:397] + "..."


def _unquote(text: str) -> str:
    if text.startswith('"') and text.endswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:  # Triton escapes less than JSON asks for
            return text[1:-1].replace("\\n", "\n")
    return text


class LogFollower:
    """Reads the lines that are appended to a log, and keeps the file from growing without end."""

    def __init__(self, path: Path, limit: int = 64 << 20) -> None:
        self.path = path
        self.limit = limit
        self._offset = 0
        self._rest = b""

    def rotate(self) -> None:
        """Keep the log of the previous run as ``.1`` and begin an empty one."""
        if self.path.exists():
            self.path.replace(self._old)
        self.path.touch()
        self._offset, self._rest = 0, b""

    def lines(self) -> Iterator[str]:
        """Yield the complete lines that came since the last call."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:  # somebody emptied it
                    self._offset, self._rest = 0, b""
                file.seek(self._offset)
                data = self._rest + file.read()
                self._offset = file.tell()
        except FileNotFoundError:  # removed under a running server, as by `make clean`; nothing more will come
            return
        *complete, self._rest = data.split(b"\n")
        for line in complete:
            yield line.decode("utf-8", "replace")
        if self._offset > self.limit:
            # The server keeps the file open for appending, so it is emptied rather than renamed.
            shutil.copyfile(self.path, self._old)
            with self.path.open("wb"):
                self._offset = 0

    @property
    def _old(self) -> Path:
        return self.path.with_name(self.path.name + ".1")
