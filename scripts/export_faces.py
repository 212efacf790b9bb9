#!/usr/bin/env python3
"""``immich-triton export faces``, for a clone from which only the model repository is deployed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "addons"))

from immich_triton.cli.main import main

sys.exit(main(["export", "faces", *sys.argv[1:]]))
