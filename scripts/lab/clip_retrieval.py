"""Images with captions, and how well embeddings find one by the other."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

RANKS: Final = (1, 5, 10)
_BLOCK: Final = 512
"""Rows of the similarity matrix at a time: 5000 texts against 30,000 images would be 600 MB."""


class DataError(ValueError):
    """The files are not in a known format; the text says which line and why."""


@dataclass(frozen=True)
class Dataset:
    """Images (read when needed), texts, and which belong together: ``pairs[text]`` are indices of images."""

    images: Sequence[Callable[[], bytes]]
    texts: Sequence[str]
    pairs: Sequence[frozenset[int]]


def load(source: Path, split: str) -> Dataset:
    """Read a folder as Chinese-CLIP publishes them, or a TSV file ``image path <tab> caption``. Raises `DataError`."""
    try:
        return _load_tsv(source) if source.is_file() else _load_folder(source, split)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8: {error}") from error


def _load_folder(folder: Path, split: str) -> Dataset:
    """Read ``<split>_imgs.tsv`` (id, base64 image) and ``<split>_texts.jsonl`` (text, image_ids)."""
    images: list[Callable[[], bytes]] = []
    numbers: dict[str, int] = {}
    path = folder / f"{split}_imgs.tsv"
    with path.open("rb") as file:
        # Only where each image begins is kept: MUGE's images would fill the memory.
        while line := file.readline():
            start = file.tell() - len(line)
            identity, tab, _ = line.partition(b"\t")
            if not tab:
                raise DataError(f"{path}: no tab in the line at byte {start}")
            numbers[identity.decode().strip()] = len(images)
            images.append(partial(_read_base64, path, start + len(identity) + 1, len(line) - len(identity) - 1))
    texts: list[str] = []
    pairs: list[frozenset[int]] = []
    path = folder / f"{split}_texts.jsonl"
    for number, line_ in enumerate(_lines(path), 1):
        try:
            entry = json.loads(line_)
            pairs.append(frozenset(numbers[str(identity)] for identity in entry["image_ids"]))
            texts.append(_published(entry["text"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: {error!r}; each line needs text and the image_ids") from error
    return Dataset(images, texts, pairs)


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file; a caption may hold what `str.splitlines` takes for the end of a line."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines if lines[-1] else lines[:-1]


def _read_base64(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        try:
            return base64.b64decode(file.read(length).strip(), validate=False, altchars=b"-_")
        except binascii.Error as error:
            raise DataError(f"{path}: the image at byte {start} is no base64: {error}") from error


def _published(text: str) -> str:
    # As cn_clip/eval/data.py prepares the captions of its published figures (lower case comes with the tokenizer).
    return text.replace("“", '"').replace("”", '"')


def _load_tsv(path: Path) -> Dataset:
    images: list[Callable[[], bytes]] = []
    numbers: dict[str, int] = {}
    texts: dict[str, set[int]] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        name, tab, text = line.partition("\t")
        if not tab:
            raise DataError(f"{path}, line {number}: no tab; each line is an image path, a tab, a caption")
        if name not in numbers:
            numbers[name] = len(images)
            images.append((path.parent / name).read_bytes)
        texts.setdefault(text, set()).add(numbers[name])
    return Dataset(images, list(texts), [frozenset(members) for members in texts.values()])


def recalls(
    images: npt.NDArray[np.float32], texts: npt.NDArray[np.float32], pairs: Sequence[frozenset[int]]
) -> dict[str, dict[int, float]]:
    """Return R@1, R@5, R@10 in percent, ``text to image`` and ``image to text``.

    A query counts when any of its partners is among the first k, as in ``cn_clip/eval/evaluation.py``. Embeddings are
    rows of length 1. Images without a caption are candidates, but no queries.
    """
    partners: dict[int, set[int]] = {}
    for text, members in enumerate(pairs):
        for image in members:
            partners.setdefault(image, set()).add(text)
    return {
        "text to image": _recalls(texts, images, dict(enumerate(pairs))),
        "image to text": _recalls(images, texts, partners),
    }


def _recalls(
    queries: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.float32],
    partners: Mapping[int, frozenset[int] | set[int]],
) -> dict[int, float]:
    asked = sorted(partners)
    found = dict.fromkeys(RANKS, 0)
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        # Stable: equal scores rank in the order of the candidates, as Python's sorted() does in the original.
        order = np.argsort(-(queries[block] @ candidates.T), axis=1, kind="stable")[:, : max(RANKS)]
        for query, ranked in zip(block, order, strict=True):
            for rank in RANKS:
                found[rank] += not partners[query].isdisjoint(ranked[:rank].tolist())
    return {rank: 100 * count / max(1, len(asked)) for rank, count in found.items()}
