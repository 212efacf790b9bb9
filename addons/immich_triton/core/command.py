"""How one program of ours starts another."""

from __future__ import annotations

import os
import sys
from typing import Final

from immich_triton.core.paths import PACKAGE

COMMAND: Final = (sys.executable, "-m", "immich_triton")
"""The command ``immich-triton`` in this interpreter, whether it is installed as a script or not."""


def environment() -> dict[str, str]:
    """Return an environment in which `COMMAND` finds this very package."""
    folders = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
