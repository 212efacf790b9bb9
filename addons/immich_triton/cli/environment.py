"""The environment that ``immich-triton setup`` makes for a package that was installed alone; standard library only.

Plain dependencies of the package cannot do it: rapidocr-onnxruntime and insightface both ask for ``opencv-python``,
which needs libGL and overwrites the headless build. So the lock files are installed as they are, apart from whatever
else lies in the interpreter that the package was installed into.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Final

from immich_triton.core.paths import PACKAGE, PROJECT, home

LOCK: Final = PROJECT / "requirements.lock"
GPU_LOCK: Final = PROJECT / "requirements-gpu.lock"

_READY: Final = ".installed"
_INSIDE: Final = "IMMICH_TRITON_ENVIRONMENT"


class Needs(Enum):
    """What a command cannot do without: modules that must be there to import."""

    NOTHING = ()
    GATEWAY = ("mitmproxy", "orjson", "requests", "rich", "tritonclient")
    PICTURES = (*GATEWAY, "PIL")
    TRITON = (*GATEWAY, "onnx", "onnxruntime", "pytriton", "rapidocr_onnxruntime")


def folder(lock: Path = LOCK) -> Path:
    """Return where the environment of the present *lock* file lies (it may not exist yet)."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    return home("XDG_DATA_HOME", ".local/share") / f"env-{digest}"


def is_ready(environment: Path) -> bool:
    """Return whether *environment* was installed as a whole."""
    return (environment / _READY).exists()


def mark_ready(environment: Path) -> None:
    """Take note that *environment* is installed as a whole."""
    (environment / _READY).touch()


def interpreter(environment: Path) -> Path:
    """Return the Python of *environment*."""
    return environment / "bin" / "python"


def lacks(needs: Needs) -> list[str]:
    """Return what this interpreter lacks of *needs*."""
    return [name for name in needs.value if importlib.util.find_spec(name) is None]


def enter(needs: Needs, arguments: Sequence[str]) -> str | None:
    """Go on in the environment of `setup` where this interpreter lacks something: then this call does not return.

    Returns None when nothing is lacking, or the sentence that says what, and what to do.
    """
    if not (missing := lacks(needs)):
        return None
    made = [environment for lock in (GPU_LOCK, LOCK) if lock.exists() and is_ready(environment := folder(lock))]
    if not made or os.environ.get(_INSIDE):
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; run: immich-triton setup"
    python = interpreter(made[0])
    command = [str(python), "-m", "immich_triton", *arguments]
    os.execve(python, command, {**os.environ, _INSIDE: "1"})  # noqa: S606 - no shell is wanted
    raise AssertionError("unreachable")


def link_package(environment: Path) -> None:
    """Let *environment* import this very package, and nothing else of the interpreter that it lies in."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    link = environment / "lib" / version / "site-packages" / PACKAGE.name
    link.unlink(missing_ok=True)
    link.symlink_to(PACKAGE)
