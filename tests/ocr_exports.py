"""Exported OCR models for tests: made once, kept in ``.cache`` under a name that says what determines them."""

from __future__ import annotations

import fcntl
import hashlib
import json
from pathlib import Path

from rich.console import Console

from immich_triton.cli import export_ocr
from immich_triton.export.ocr import models as ocr_models
from immich_triton.export.repository import MODELS, PROJECT

CACHE = PROJECT / ".cache" / "test-models"


def build(version: str = "v5+v6", precision: str = "bf16") -> Path:
    """Return a model repository with PP-OCR *version* and the ``ocr`` pipeline, computing in *precision*.

    Not the default version: which one that is depends on the machine.
    """
    placements = ocr_models.placements(precision=precision)
    record = export_ocr.record(version, export_ocr.NAMES, placements)
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    # A server of another test run may be reading the folder: a changed pipeline gets a folder of its own.
    for path in sorted((MODELS / "ocr").rglob("*.p*")):
        if "__pycache__" not in path.parts:
            key.update(path.read_bytes())
    models = CACHE / f"ocr-{version}-{key.hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{models.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (models / "complete").exists():
            models.mkdir(exist_ok=True)
            export_ocr.export(
                version, models / "models", names=export_ocr.NAMES, placements=placements, console=Console(stderr=True)
            )
            (models / "complete").touch()
    return models / "models"
