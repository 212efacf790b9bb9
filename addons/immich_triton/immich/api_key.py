"""Immich's API key for a command-line program, which takes no key as an argument: everybody may read those."""

from __future__ import annotations

import argparse
import os
from typing import Final

from immich_triton.ml.settings import secret

VARIABLE: Final = "IMMICH_API_KEY"
_DEFAULT: Final = f"env:{VARIABLE}"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--api-key`` to a command line."""
    parser.add_argument(
        "--api-key",
        default=_DEFAULT,
        metavar="WHERE",
        help="where the key stands: file:PATH or env:NAME (default: %(default)s)",
    )


def read(option: str) -> str:
    """Return the key that the *option* points to, empty when there is none. Raises ValueError with what to do."""
    if option == _DEFAULT and not os.environ.get(VARIABLE):
        return ""
    return secret("--api-key", option)
