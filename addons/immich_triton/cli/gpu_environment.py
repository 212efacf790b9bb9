"""The environment with ONNX Runtime for GPUs, which ``immich-triton setup --gpu`` makes. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from immich_triton.cli import environment

COMMANDS: Final = ("run", "triton")
"""Those whose --gpu means that networks are computed on a GPU; exports only write down where they are to be."""

INSIDE: Final = "IMMICH_TRITON_GPU_ENVIRONMENT"


def wanted(command: str, arguments: Sequence[str]) -> bool:
    """Tell whether *command* is to compute on a GPU."""
    return command in COMMANDS and "--gpu" in arguments


def runtime() -> str | None:
    """Return the version of ONNX Runtime for GPUs in this interpreter; None when it has that for CPUs, or none."""
    try:
        return version("onnxruntime-gpu")
    except PackageNotFoundError:
        return None


def enter(arguments: Sequence[str]) -> str | None:
    """Go on in the environment with ONNX Runtime for GPUs, unless this is one: then this call does not return.

    Returns None where there is no need, or the sentence that says what to do: it never goes on without a GPU.
    """
    if runtime() is not None:
        return None
    lock = environment.GPU_LOCK
    if os.environ.get(INSIDE) or not (lock.exists() and environment.is_ready(made := environment.folder(lock))):
        return "ONNX Runtime for GPUs is not installed; run: immich-triton setup --gpu"
    python = environment.interpreter(made)
    command = [str(python), "-m", "immich_triton", *arguments]
    os.execve(python, command, {**os.environ, INSIDE: "1"})  # noqa: S606 - no shell is wanted
    raise AssertionError("unreachable")
