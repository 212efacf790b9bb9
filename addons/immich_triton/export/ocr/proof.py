"""Proof, at export time, that the rebuilt OCR networks compute what the original files compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from immich_pipelines.ocr_ctc import VARIANTS
from immich_pipelines.ocr_variants import Table
from immich_pipelines.onnx_metadata import metadata_props
from immich_triton.export.sessions import cpu_session

TOLERANCE: Final = 1e-4
"""Largest difference that passes of a score, and of a text probability, a third of which decides. Sums in another order
differ most on the edges of text, and where a step is in doubt: by 5e-5 with v5's recogniser."""
HALF: Final = 0.2
"""The same in half precision, on pages of twenty letters and on noise. How pages are read tells the evaluation alone; a
network that overflows differs by 1, or is no number."""

LINES: Final = ("Immich 2025-06-10 18:32", "WiFi: Airport-Free", "TOTAL 76.90 EUR", "a b c", "6222 0188 3391")
WIDTHS: Final = (64, 160, 320, 640)
DETECTION_SIZES: Final = ((32, 32), (96, 160), (160, 288), (320, 256))
READABLE: Final = 160
"""From this height on the lines on a page are complete, so that there must be text on it."""
LIKELY: Final = 0.5

Array = npt.NDArray[Any]


class ProofError(RuntimeError):
    """The rebuilt network differs from the original; nothing is installed."""


@dataclass(frozen=True)
class Proof:
    """What was compared: *runs* of the original, and the largest difference found."""

    runs: int
    largest: float
    steps: int = 0
    """CTC steps whose arg-max was compared."""
    texts: int = 0
    """Lines whose decoded text was compared, each of them identical and not empty."""
    ties: int = 0
    """Steps with another class that is equally likely within the tolerance."""

    def __str__(self) -> str:
        """Return one line for the terminal."""
        parts = [f"{self.runs} runs"]
        if self.steps:
            parts.append(f"{self.texts} texts and {self.steps:,} arg-max steps identical")
        if self.ties:
            parts[-1] += f" but for {self.ties} ties"
        return f"{', '.join(parts)}, largest difference {self.largest:.1e}"


def prove_detector(original: Path, rebuilt: Path, tolerance: float = TOLERANCE) -> Proof:
    """Compare text probabilities over several sizes, one image at a time and, where it takes batches, two together.

    Raises `ProofError` when they differ by more than *tolerance*, or where there is nothing to compare: a page of text
    on which the original sees none.
    """
    before, after = cpu_session(original), cpu_session(rebuilt)
    as_pixels = "uint8" in after.get_inputs()[0].type
    random = np.random.default_rng(0)
    runs, largest = 0, 0.0
    for height, width in DETECTION_SIZES:
        pages = np.stack([_page(height, width), random.integers(0, 256, (height, width, 3), np.uint8)])
        floats = _floats(pages)
        expected = np.concatenate([_run(before, page)[0] for page in np.split(floats, len(pages))])
        if height >= READABLE and expected[0].max() < LIKELY:
            raise ProofError(f"{original.name} sees no text on a page of {width}x{height} with {len(LINES)} lines")
        given = pages if as_pixels else floats
        alone = np.concatenate([_run(after, page)[0] for page in np.split(given, len(pages))])
        largest = max(largest, _largest(expected, alone))
        if not as_pixels:
            largest = max(largest, _largest(expected, _run(after, given)[0]))
        runs += len(pages)
    _require(largest, "text probability", tolerance)
    return Proof(runs, largest)


def prove_recognizer(original: Path, rebuilt: Path, characters: Sequence[str], tolerance: float = TOLERANCE) -> Proof:
    """Compare arg-max, maximum and alternatives with numpy's over the original's full output, and the decoded texts.

    Over rendered lines and noise at several widths, one line at a time and as a batch. Raises `ProofError` when an
    index differs, a score differs by more than *tolerance*, or a rendered line gives no text.
    """
    before, after = cpu_session(original), cpu_session(rebuilt)
    metadata = metadata_props(rebuilt)
    table = Table.of(characters, *(metadata[key].split() for key in VARIANTS)).others
    random = np.random.default_rng(0)
    runs, largest, steps, texts, ties = 0, 0.0, 0, 0, 0
    for width in WIDTHS:
        noise = random.uniform(-1, 1, (2, 3, 48, width))
        batch = np.concatenate([*(_line(text, width) for text in LINES), noise]).astype(np.float32)
        alone = [_run(before, batch[i : i + 1])[0] for i in range(len(batch))]
        if alone[0].shape[2] != len(characters):
            raise ProofError(f"{original.name} has {alone[0].shape[2]} classes, the dictionary {len(characters)}")
        expected = np.concatenate(alone)
        indices, scores, others = _run(after, batch)
        single = [_run(after, batch[i : i + 1]) for i in range(len(batch))]
        for got in (indices, np.concatenate([result[0] for result in single])):
            # Another class is right only where the two are as good as equal: batches round differently on some CPUs.
            chosen = np.take_along_axis(expected, got[..., np.newaxis].astype(np.int64), axis=2)[..., 0]
            if (chosen < expected.max(axis=2) - tolerance).any():
                raise ProofError(f"the folded arg-max of {rebuilt.name} differs at width {width}")
            ties += int((expected.argmax(axis=2) != got).sum())
        for got in (scores, np.concatenate([result[1] for result in single])):
            largest = max(largest, _largest(expected.max(axis=2), got))
        largest = max(largest, _largest(np.take_along_axis(expected, table[indices], axis=2), others))
        for index in range(len(LINES)):
            before_text = _text(expected[index].argmax(axis=1), characters)
            if not before_text or before_text != _text(indices[index], characters):
                raise ProofError(f"{LINES[index]!r} at width {width} reads {before_text!r} before the surgery")
        runs, steps, texts = runs + len(batch), steps + indices.size, texts + len(LINES)
    _require(largest, "score", tolerance)
    return Proof(runs, largest, steps, texts, ties)


def _require(largest: float, what: str, tolerance: float) -> None:
    if largest > tolerance:
        raise ProofError(f"a {what} differs by {largest:.1e}, more than the allowed {tolerance:.0e}")


def _run(session: Any, batch: Array) -> list[Array]:
    results: list[Array] = session.run(None, {session.get_inputs()[0].name: batch})
    return results


def _largest(expected: Array, got: Array) -> float:
    # What is no number is the largest of all: `max` would pass it over.
    return float(np.nan_to_num(np.abs(expected - got), nan=np.inf).max())


def _text(indices: Array, characters: Sequence[str]) -> str:
    kept = [index for step, index in enumerate(indices) if index and (step == 0 or index != indices[step - 1])]
    return "".join(characters[index] for index in kept)


def _line(text: str, width: int) -> Array:
    return _floats(_rendered(text, 48, width, size=30)[np.newaxis])


def _page(height: int, width: int) -> Array:
    return _rendered("\n".join(LINES), height, width, size=16)


def _rendered(text: str, height: int, width: int, size: int) -> Array:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).multiline_text((4, 4), text, fill="black", font=ImageFont.load_default(size), spacing=8)
    return np.asarray(image)


def _floats(pages: Array) -> Array:
    """Return float32 [N, 3, H, W], BGR and -1..1, of *pages* (uint8 [N, H, W, 3], RGB)."""
    floats: Array = pages[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
    return np.ascontiguousarray(floats)
