"""The environment with ONNX Runtime for GPUs, which ``immich-triton setup --gpu`` makes. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from immich_triton.cli import environment
from immich_triton.core import versions

COMMANDS: Final = ("run", "triton")
"""Those whose --gpu means that networks are computed on a GPU; exports only write down where they are to be."""

INSIDE: Final = "IMMICH_TRITON_GPU_ENVIRONMENT"


def wanted(command: str, arguments: Sequence[str]) -> bool:
    """Tell whether *command* is to compute on a GPU."""
    return command in COMMANDS and "--gpu" in arguments


def runtime() -> str | None:
    """Return the version of ONNX Runtime for GPUs in this interpreter; None when it has that for CPUs, or none."""
    found = versions.of("onnxruntime-gpu")
    return None if found == versions.UNKNOWN else found


def enter(arguments: Sequence[str]) -> str | None:
    """Go on in the environment with ONNX Runtime for GPUs, unless this is one: then this call does not return.

    Returns None where there is no need, or the sentence that says what to do: it never goes on without a GPU.
    """
    if runtime() is not None:
        return None
    site = "--web" in {argument.partition("=")[0] for argument in arguments}
    choices = [locks for locks in environment.choices(site=site) if environment.GPU_LOCK in locks]
    made = [ready for locks in choices if environment.is_ready(ready := environment.folder(*locks))]
    if os.environ.get(INSIDE) or not made:
        return f"ONNX Runtime for GPUs is not installed; run: immich-triton setup --gpu{' --web' if site else ''}"
    python = environment.interpreter(made[0])
    command = [str(python), "-m", "immich_triton", *arguments]
    os.execve(python, command, {**os.environ, INSIDE: "1"})  # noqa: S606 - no shell is wanted
    raise AssertionError("unreachable")
