"""What the halves of ``immich-triton models`` share: a file, a model repository, and what is said of a fault."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from immich_triton.core.paths import MODELS
from immich_triton.export.archive import ArchiveError


def parser(description: str | None, file_help: str) -> argparse.ArgumentParser:
    """Return a command line with the archive, which *file_help* explains, and ``--models``."""
    command = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("file", type=Path, help=file_help)
    command.add_argument(
        "--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)"
    )
    return command


def attempt(name: str, work: Callable[[], str]) -> int:
    """Do the *work* of the command *name* and print what it returns; return the exit code."""
    try:
        said = work()
    except (ArchiveError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(said)
    return 0
