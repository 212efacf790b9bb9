"""Chinese-CLIP models with random weights, exported for real once and kept in ``.cache/test-models``, and what the
original makes of a set of images and texts.

No package carries trained weights. Random ones put all embeddings close together (an upside-down photo still has a
cosine of 0.999999 with itself), so tests compare *centred* embeddings: minus the mean over the set.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from immich_triton.export.clip import environment as clip_environment
from immich_triton.export.clip import samples as clip_samples
from immich_triton.export.clip.models import CLIP_MODELS
from immich_triton.export.clip.repository import PIPELINES
from immich_triton.export.repository import PROJECT, install_pipelines

FloatArray = npt.NDArray[np.float32]

MODELS: Final = {"RN50": ("--external-data",), "ViT-B-16": ()}
"""With the export's options: one of them goes all the way with its weights in a file beside the graph."""
SEED: Final = 7
IMAGES: Final = 16
TEXTS: Final = tuple(clip_samples.texts()[::3])
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


def build() -> ClipStandins:
    """Return the stand-ins, exporting them first where the cache has none of this version."""
    folder = PROJECT / ".cache" / "test-models" / f"clip-{_digest(*_exporter(), MODELS, SEED)}"
    folder.mkdir(parents=True, exist_ok=True)
    reference = folder / f"reference-{_digest(REFERENCE, IMAGES, TEXTS)}.npz"
    with _locked(folder / "lock"):
        for model, options in MODELS.items():
            if not (folder / "models" / CLIP_MODELS[model].visual).exists():
                arguments = ["--random-weights", str(SEED), "--models", str(folder / "models"), *options]
                subprocess.run([sys.executable, PROJECT / "immich-triton export clip", model, *arguments], check=True)
        # They may have changed since the models were exported.
        install_pipelines(folder / "models", PIPELINES)
        images = tuple(_images(folder / "images"))
        if not reference.exists():
            _ask_the_original(folder, reference)
    with np.load(reference) as arrays:
        return ClipStandins(folder / "models", images, dict(arrays))


def _exporter() -> list[Path]:
    pipelines = [PROJECT / f"triton_backends/immich_pipelines/clip_{name}.py" for name in ("tokenizer", "transform")]
    toolbox = sorted((PROJECT / "scripts/toolbox").glob("clip_*.py"))
    return [PROJECT / "immich-triton export clip", clip_environment.LOCK, *toolbox, *pipelines]


def _digest(*values: object) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.read_bytes() if isinstance(value, Path) else repr(value).encode())
    return digest.hexdigest()[:16]


REFERENCE: Final = Path(__file__).with_name("clip_reference.py")


def run_in_export_environment(script: Path, *arguments: str) -> str:
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


def _ask_the_original(folder: Path, result: Path) -> None:
    (folder / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    partial = folder / "partial.npz"
    run_in_export_environment(REFERENCE, str(folder), str(partial), str(SEED), *MODELS)
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
