"""The environment that exports CLIP: Python 3.11 with torch and cn_clip, apart from the gateway's.

torch needs 5 GB with its CUDA libraries, so the environment lies in the user's cache, one per lock file: every clone of
the project shares it, and a changed lock makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from immich_triton.core.paths import PACKAGE, PROJECT

LOCK: Final = PROJECT / "requirements-export.lock"
_VERSION: Final = "3.11"
_READY: Final = ".installed"

_NO_PYTHON = f"""no Python {_VERSION} found, which exporting CLIP needs beside the project's Python 3.12.
Install one of these, then run the same command again:
    pyenv install {_VERSION}          (https://github.com/pyenv/pyenv)
    uv python install {_VERSION}      (https://docs.astral.sh/uv)
or name an interpreter: EXPORT_PYTHON=/path/to/python{_VERSION}"""


class EnvironmentSetupError(Exception):
    """The export environment cannot be made here; the text says why and what to do."""


def folder() -> Path:
    """Return where the environment of the present lock file lies (it may not exist yet)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return cache / "immich-triton" / f"export-{digest}"


def ensure() -> Path:
    """Return the interpreter of the export environment, making the environment when it is not there.

    The first time takes a few minutes (5 GB). Raises `EnvironmentSetupError`.
    """
    target = folder()
    if (target / _READY).exists():  # in the exporter's image, where nothing can be locked
        return target / "bin" / "python"
    target.parent.mkdir(parents=True, exist_ok=True)
    # Two exports that start at once: the second waits and finds it made.
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / _READY).exists():
            _make(target)
    return target / "bin" / "python"


def run(module: str, *arguments: str) -> None:
    """Run ``python -m module arguments`` in the export environment; raises `subprocess.CalledProcessError`."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONHOME", "VIRTUAL_ENV"}}
    environment["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), str(PROJECT / "triton_backends")])
    subprocess.run([ensure(), "-m", module, *arguments], check=True, env=environment)


def _make(target: Path) -> None:
    python = _find_python()
    print(
        f"export environment: creating {target} ({_VERSION}, torch and cn_clip; 5 GB, a few minutes, once)", flush=True
    )
    shutil.rmtree(target, ignore_errors=True)
    pip = [str(target / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([python, "-m", "venv", target], check=True)
        # --no-deps: the lock is complete. --no-cache-dir: 2.5 GB of wheels that nothing else would use.
        subprocess.run([*pip, "install", "--no-cache-dir", "--no-deps", "--require-hashes", "-r", LOCK], check=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise EnvironmentSetupError(f"the export environment could not be made: {error}") from error
    (target / _READY).touch()


def _find_python() -> str:
    candidates = [os.environ.get("EXPORT_PYTHON"), f"python{_VERSION}", "python3", sys.executable]
    for candidate in filter(None, candidates):
        if _is_right(candidate):
            return candidate
    if shutil.which("uv"):
        found = subprocess.run(["uv", "python", "find", _VERSION], capture_output=True, text=True, check=False)
        if found.returncode == 0 and _is_right(found.stdout.strip()):
            return found.stdout.strip()
    raise EnvironmentSetupError(_NO_PYTHON)


def _is_right(python: str) -> bool:
    code = f"import sys, venv; sys.exit('{_VERSION}' != '%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
