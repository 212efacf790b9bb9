"""Where things lie in the project, for tests in any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
DATA: Final = PROJECT / "tests" / "data"
"""Images, recorded requests of Immich, recorded answers of stock: see its README."""
