"""Chinese-CLIP models with random weights, exported for real once and kept in ``.cache/test-models``, and what the
original makes of a set of images and texts. Small ones have few layers, see ``clip_small.py``.

No package carries trained weights. Random ones put all embeddings close together (an upside-down photo still has a
cosine of 0.999999 with itself), so tests compare *centred* embeddings: minus the mean over the set.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from immich_triton.cli import export_clip
from immich_triton.core.paths import PROJECT
from immich_triton.export.clip import environment as clip_environment
from immich_triton.export.clip import samples as clip_samples
from immich_triton.export.clip.models import CLIP_MODELS
from immich_triton.export.clip.repository import PIPELINES
from immich_triton.export.repository import install_pipelines

FloatArray = npt.NDArray[np.float32]

MODELS: Final = {"RN50": ("--external-data",), "ViT-B-16": ()}
"""With the export's options: one of them goes all the way with its weights in a file beside the graph."""
SEED: Final = 7
IMAGES: Final = 16
TEXTS: Final = tuple(clip_samples.texts()[::3])
REFERENCE, CHECKS, SMALL = (
    Path(__file__).with_name(f"clip_{name}.py") for name in ("reference", "export_checks", "small")
)
"""What runs in the export environment."""
CACHE: Final = PROJECT / ".cache" / "test-models"
LIMIT: Final = 0.99999
"""Lowest centred cosine."""


@dataclass(frozen=True)
class ClipStandins:
    """``models`` is a model repository with the pipelines; ``images`` the files that the original was asked about."""

    models: Path
    images: tuple[Path, ...]
    reference: dict[str, npt.NDArray[Any]]

    def expected(self, model: str, what: str) -> npt.NDArray[Any]:
        """Return what the original made of the set; *what* as in ``clip_reference.py``."""
        return self.reference[f"{model}/{what}"]


def build(*, small: bool = True) -> ClipStandins:
    """Return the stand-ins, exporting them first where the cache has none of this version.

    The first time takes a minute, and minutes where they are not *small*; an environment with torch is made before.
    """
    folder = CACHE / f"clip-{'small' if small else 'full'}-{_digest(*_exporter(), MODELS, SEED, small and SMALL)}"
    folder.mkdir(parents=True, exist_ok=True)
    reference = folder / f"reference-{_digest(REFERENCE, IMAGES, TEXTS)}.npz"
    with _locked(folder / "lock"):
        for model, options in MODELS.items():
            if not (folder / "models" / CLIP_MODELS[model].visual).exists():
                arguments = ["--random-weights", str(SEED), "--models", str(folder / "models"), *options]
                _export([model, *arguments], small=small)
        # They may have changed since the models were exported.
        install_pipelines(folder / "models", PIPELINES)
        images = tuple(_images(folder / "images"))
        if not reference.exists():
            _ask_the_original(folder, reference, small=small)
    with np.load(reference) as arrays:
        return ClipStandins(folder / "models", images, dict(arrays))


def checked() -> tuple[dict[str, Any], Path]:
    """Return what ``clip_export_checks.py`` found, and its folder; the checks are run when the exporter has changed."""
    folder = CACHE / f"clip-checks-{_digest(*_exporter(), CHECKS, SMALL)}"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not (folder / "done/results.json").exists():
            for left in ("partial", "done"):
                shutil.rmtree(folder / left, ignore_errors=True)
            (folder / "partial").mkdir()
            run_in_export_environment(SMALL, str(CHECKS), str(folder / "partial"))
            (folder / "partial").rename(folder / "done")
    results: dict[str, Any] = json.loads((folder / "done/results.json").read_text())
    return results, folder / "done"


def _export(arguments: list[str], *, small: bool) -> None:
    """Run ``export_clip.py``; small models need another program in the export environment, and nothing else."""

    def run(module: str, *more: str) -> None:
        run_in_export_environment(SMALL, module, *more)

    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(clip_environment, "run", run)
        assert export_clip.main(arguments) == 0


def _exporter() -> list[Path]:
    pipelines = [PROJECT / f"triton_backends/immich_pipelines/clip_{name}.py" for name in ("tokenizer", "transform")]
    package = PROJECT / "addons/immich_triton"
    ours = [
        package / "cli/export_clip.py",
        package / "export/weights_beside.py",
        *sorted((package / "export/clip").glob("*.py")),
    ]
    return [*ours, clip_environment.LOCK, *pipelines]


def _digest(*values: object) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.read_bytes() if isinstance(value, Path) else repr(value).encode())
    return digest.hexdigest()[:16]


def run_in_export_environment(script: Path | str, *arguments: str) -> str:
    """Run *script* with the export environment's Python and return what it printed. Fails with its error output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(PROJECT / name) for name in _IMPORTABLE)}
    done = subprocess.run(
        # -P: beside the script lies a folder `triton`, which torch would take for the compiler of that name.
        [clip_environment.ensure(), "-P", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


_IMPORTABLE: Final = ("addons", "scripts", "triton_backends")


def _ask_the_original(folder: Path, result: Path, *, small: bool) -> None:
    (folder / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    partial = folder / "partial.npz"
    program = [SMALL, str(REFERENCE)] if small else [REFERENCE]
    run_in_export_environment(*program, str(folder), str(partial), str(SEED), *MODELS)
    partial.rename(result)


def _images(folder: Path) -> Iterator[Path]:
    """Save the samples as Immich would send them: JPEG, some WebP; PNG where noise would not survive."""
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(clip_samples.images()[:IMAGES]):
        suffix = (".png", ".jpg", ".webp", ".jpg")[index % 4]
        path = folder / f"{index:02}{suffix}"
        if not path.exists():
            partial = folder / f"partial{suffix}"
            image.save(partial, quality=80)
            partial.rename(path)
        yield path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def centred_cosines(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """Return for each row the cosine between *ours* and *theirs*, each minus its mean over the set."""
    a = ours.astype(np.float64) - ours.mean(axis=0, dtype=np.float64)
    b = theirs.astype(np.float64) - theirs.mean(axis=0, dtype=np.float64)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    result: FloatArray = cosines.astype(np.float32)
    return result
