"""Exported OCR models for tests: made once, kept in ``.cache`` under a name that says what determines them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from pathlib import Path

from rich.console import Console

from immich_triton.cli import export_ocr
from immich_triton.core.paths import MODELS, PROJECT
from immich_triton.export.ocr import models as ocr_models

CACHE = PROJECT / ".cache" / "test-models"
DEFAULTS = ("v5+v6", "v5")
"""The versions that an export chooses by itself, on one machine or another."""
TOGETHER = "ocr_together"
"""The pipeline as `for_server` adds it: one that takes batches of five only, whenever they come."""
F32 = {"detector": "ocr_det_f32", "recognizer": "ocr_rec_f32"}
"""The networks that `for_server` adds, as parameters of a request: exported for f32, which is exact."""


def build(version: str = "v5+v6", precision: str = "", *, gpu: bool = False) -> Path:
    """Return a model repository with PP-OCR *version* and the ``ocr`` pipeline, computing in *precision*.

    Not the default version: which one that is depends on the machine. *gpu*: as it is written for one.
    """
    placements = ocr_models.placements(precision=precision or None, gpu=gpu)
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


def for_server(exported: Path, models: Path) -> None:
    """Copy the repository *exported* to *models*, with a pipeline and networks more, so that one server will do.

    The pipelines run in one process each: what is sent while it is busy becomes one batch.
    """
    shutil.copytree(exported, models)
    pipeline = models / "ocr/config.pbtxt"
    _rewrite(pipeline, "count: 2", "count: 1")
    shutil.copytree(models / "ocr", models / TOGETHER)
    waiting = "dynamic_batching { max_queue_delay_microseconds: 100000000 preferred_batch_size: [ 5 ] }"
    config = models / TOGETHER / "config.pbtxt"
    _rewrite(config, 'name: "ocr"', f'name: "{TOGETHER}"')
    _rewrite(config, "dynamic_batching { }", waiting)
    exact = build(precision="f32")
    for name in F32.values():
        original = name.removesuffix("_f32")
        # Without its route, which is that of the other network.
        shutil.copytree(exact / original, models / name, ignore=shutil.ignore_patterns("route.toml"))
        _rewrite(models / name / "config.pbtxt", f'name: "{original}"', f'name: "{name}"')


def _rewrite(config: Path, old: str, new: str) -> None:
    text = config.read_text(encoding="utf-8")
    assert text.count(old) == 1, (config, old)
    config.write_text(text.replace(old, new), encoding="utf-8")
