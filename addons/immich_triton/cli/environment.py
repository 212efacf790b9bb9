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
WEB_LOCK: Final = PROJECT / "requirements-web.lock"
"""What the site in front of the Immich server needs, beside one of the others; the versions in all of them agree."""

_READY: Final = ".installed"
_INSIDE: Final = "IMMICH_TRITON_ENVIRONMENT"


class Needs(Enum):
    """What a command cannot do without: modules that must be there to import."""

    NOTHING = ()
    GATEWAY = ("mitmproxy", "orjson", "requests", "rich", "tritonclient")
    PICTURES = (*GATEWAY, "PIL")
    TRITON = (*GATEWAY, "onnx", "onnxruntime", "pytriton", "rapidocr_onnxruntime")
    TRITON_AND_SITE = (*TRITON, "asyncpg", "bullmq", "opencc", "redis", "rjieba")

    @property
    def of_the_site(self) -> bool:
        """Whether the libraries of the site are among them."""
        return self is Needs.TRITON_AND_SITE


def folder(*locks: Path) -> Path:
    """Return where the environment of the present *locks* lies (it may not exist yet); `LOCK` when none is named.

    Its name is made of all of them together, so that a change of any asks for a new environment.
    """
    content = b"".join(lock.read_bytes() for lock in locks or (LOCK,))
    return home("XDG_DATA_HOME", ".local/share") / f"env-{hashlib.sha256(content).hexdigest()[:12]}"


def choices(*, site: bool) -> list[tuple[Path, ...]]:
    """Return which locks an environment may have been made of, the one to be taken first at the front.

    ONNX Runtime for GPUs where that was installed; the libraries of the site only for who needs them, or has no other.
    """
    wanted = ((GPU_LOCK, WEB_LOCK), (LOCK, WEB_LOCK)) if site else ()
    plain = ((GPU_LOCK,), (GPU_LOCK, WEB_LOCK), (LOCK,), (LOCK, WEB_LOCK))
    return [locks for locks in wanted or plain if all(lock.exists() for lock in locks)]


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
    made = [ready for locks in choices(site=needs.of_the_site) if is_ready(ready := folder(*locks))]
    if not made or os.environ.get(_INSIDE):
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; run: {_setup(needs)}"
    python = interpreter(made[0])
    command = [str(python), "-m", "immich_triton", *arguments]
    os.execve(python, command, {**os.environ, _INSIDE: "1"})  # noqa: S606 - no shell is wanted
    raise AssertionError("unreachable")


def _setup(needs: Needs) -> str:
    """Return the command that installs *needs*; whoever has the libraries for GPUs is to keep them."""
    gpu = needs.of_the_site and GPU_LOCK.exists() and is_ready(folder(GPU_LOCK))
    return f"immich-triton setup{' --gpu' if gpu else ''}{' --web' if needs.of_the_site else ''}"


def link_package(environment: Path) -> None:
    """Let *environment* import this very package, and nothing else of the interpreter that it lies in."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    link = environment / "lib" / version / "site-packages" / PACKAGE.name
    link.unlink(missing_ok=True)
    link.symlink_to(PACKAGE)
