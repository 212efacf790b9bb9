"""Install what the other commands need, hash by hash, into an environment of its own. Run again, it does what is left.

It takes uv where that is installed, else pip, and shows how far it is. A clone has `make setup` for this.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from immich_triton.cli import environment

EVERY: Final = 5.0
"""Seconds from one line of progress to the next."""


QUIET: Final = (
    *(" ", "Looking", "Requirement", "Using", "Downloading", "Processing", "Installing", "Successfully"),
    *("Obtaining", "Building", "Created", "Stored"),
)
"""How pip's lines begin that say nothing to whoever waits."""


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    locks = [options.lock or (environment.GPU_LOCK if options.gpu else environment.LOCK)]
    if options.web:
        locks.append(environment.WEB_LOCK)
    try:
        check(locks)
        target = options.environment or environment.folder(*locks)
        whole = [lock.resolve() for lock in locks]
        install(whole, target.absolute(), editable=options.editable, python=options.python)
    except (SetupError, OSError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    if options.environment is None:
        remove_others(target, locks)
    more = (" --gpu" if options.gpu else "") + (" --web http://immich-server:2283" if options.web else "")
    print("setup: done" if options.environment else f"setup: done; go on with: immich-triton run{more}", flush=True)
    return 0


def check(locks: Iterable[Path]) -> None:
    """Raise `SetupError` for a lock file that is missing, before anything is made."""
    for lock in locks:
        if not lock.exists():
            raise SetupError(f"{lock} is missing: this installation of immich-triton is not whole; install it again")


def install(locks: Sequence[Path], target: Path, *, editable: Path | None = None, python: str = sys.executable) -> None:
    """Install exactly what *locks* list into the environment *target*, which is made when it is not there.

    *editable*: a clone to install on top of it; else the running package is linked in. Raises `SetupError`.
    """
    if not environment.interpreter(target).exists():
        _say(f"creating {target}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        _run(
            [python, "-m", "venv", str(target)], "the environment could not be made (Debian: apt install python3-venv)"
        )
    tool = installer(target)
    # One after the other: of what stands in two of them an installer would want to know which hashes count.
    for lock in locks:
        count = len(re.findall(r"^[a-z]", lock.read_text(encoding="utf-8"), re.MULTILINE))
        _say(f"installing {count} packages from {lock.name} with {'uv' if tool[1] == 'pip' else 'pip'}")
        # --no-deps: the lock is complete; opencv-python is replaced by its headless build there.
        line = [*tool, "--no-deps", "--require-hashes", "-r", str(lock)]
        _run(line, "see above; run the same command again to go on", count)
    if editable is None:
        environment.link_package(target)
    else:
        _run([*tool, "--no-deps", "--no-build-isolation", "-e", str(editable)], "see above")
    environment.mark_ready(target)


def installer(target: Path) -> list[str]:
    """Return the beginning of the command line that installs into *target*: uv's where there is one, else pip's."""
    python = str(environment.interpreter(target))
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", f"--python={python}"]
    return [python, "-m", "pip", "install", "--disable-pip-version-check"]


def _run(command: Sequence[str], remedy: str, count: int = 0) -> None:
    """Run *command*; with a *count* of packages, tell how many of them were reached. Raises `SetupError`."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for mypy; it is a pipe
        with _kept(process):
            lines = list(shown(process.stdout, count))
    if process.returncode != 0:
        raise SetupError(f"{' '.join(command[:4])} … ended with exit code {process.returncode}; {remedy}\n{lines[-1:]}")


@contextmanager
def _kept(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        process.terminate()
        raise


def shown(output: Iterator[str], count: int) -> Iterator[str]:
    """Yield the lines of *output*; print errors as they come, and now and then how far it is."""
    reached, told = 0, time.monotonic()
    for line in output:
        if found := re.match(r"Collecting ([^ ;=<>~!\[(]+)", line):
            reached += 1
            if count and time.monotonic() - told >= EVERY:
                told = time.monotonic()
                _say(f"{reached} of {count}: {found[1]}")
        elif count and line.startswith("Installing collected packages"):
            _say(f"{count} of {count} are here; unpacking")
        elif not line.startswith(QUIET):
            print(line, end="", flush=True)
        yield line


def remove_others(target: Path, locks: Sequence[Path]) -> None:
    """Remove environments that *target*, made of *locks*, replaces: each has 1.5 GB, and nobody would find them.

    Those of older versions, and one of the present version that has a part of these locks only.
    """
    present = environment.choices(site=False)
    keep = {environment.folder(*others).name for others in present if not set(others) < set(locks)} | {target.name}
    parts = {environment.folder(*others).name for others in present if set(others) < set(locks)}
    for folder in target.parent.glob("env-*"):
        if folder.name not in keep:
            why = f"whose packages are all in {target.name}" if folder.name in parts else "of an older version"
            _say(f"removing {folder}, {why}")
            shutil.rmtree(folder, ignore_errors=True)


def _say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--gpu", action="store_true", help="with ONNX Runtime for NVIDIA GPUs (CUDA) instead of that for CPUs")
    add("--web", action="store_true", help="also what the site needs, which immich-triton run --web URL starts")
    add("--environment", type=Path, metavar="DIR", help="where to install (default: a folder among the user's data)")
    add("--lock", type=Path, metavar="FILE", help="what to install (default: what run needs)")
    add("--editable", type=Path, metavar="DIR", help="for a clone: install the package from there, as it is edited")
    add("--python", default=sys.executable, metavar="PATH", help="the Python 3.12 to use (default: this one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
