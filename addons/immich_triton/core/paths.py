"""Where things lie: in a clone below its top folder, in an installed wheel in the package and the user's folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parents[1]

SHIPPED: Final = PACKAGE / "_shipped"
"""Where a wheel carries what a clone has beside the package: addons, pipelines, backends, SQL, lock files."""

INSTALLED: Final = SHIPPED.is_dir()
"""Whether this is an installed wheel: nothing may be written beside the package then."""

PROJECT: Final = SHIPPED if INSTALLED else PACKAGE.parents[1]
"""What is read from: ``addons/*.py``, ``triton_models/`` (the pipelines), ``triton_backends/``, the lock files."""

SQL: Final = PROJECT / "deploy/sql"
"""What an administrator of Immich's database runs, so that the site may read the text in it."""


def home(variable: str, default: str) -> Path:
    """Return this program's folder among the user's own (XDG Base Directory Specification)."""
    return Path(os.environ.get(variable) or Path.home() / default) / "immich-triton"


DATA: Final = home("XDG_DATA_HOME", ".local/share") if INSTALLED else PROJECT
MODELS: Final = DATA / "triton_models"
"""The model repository, unless another is named."""

KEPT_APART: Final = INSTALLED or not os.access(PROJECT, os.W_OK)
"""Whether nothing may be written beside the code: an installed wheel, or a clone of somebody else, as in the image."""

RUN: Final = home("XDG_STATE_HOME", ".local/state") / "run" if KEPT_APART else PROJECT / ".run"
"""Logs and process ids of what was started."""

CACHE: Final = home("XDG_CACHE_HOME", ".cache") if KEPT_APART else PROJECT / ".cache"
"""What was downloaded and can be downloaded again."""
