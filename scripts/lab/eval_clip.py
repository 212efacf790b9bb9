#!/usr/bin/env python3
"""Measure how well search works: recall of images by their captions and the reverse, through the gateway.

The figures are computed as Chinese-CLIP computes its published ones. For ViT-B-16 these are, text to image R@1 without
fine-tuning: MUGE (split valid) 52.1, Flickr30K-CN (split test) 62.7; yours must lie within 0.2 of them.

    .venv/bin/python scripts/lab/eval_clip.py Flickr30k-CN --split test --name ViT-B-16__openai
    .venv/bin/python scripts/lab/eval_clip.py captions.tsv --name ViT-B-16__openai

DATA is a folder as Chinese-CLIP publishes them (<split>_imgs.tsv and <split>_texts.jsonl), or a TSV file whose lines
hold the path of an image, a tab, and a caption.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from pathlib import Path

import clip_retrieval
import numpy as np
import numpy.typing as npt
import requests
from rich.console import Console
from rich.progress import track
from rich.table import Table

from immich_triton.immich.ml_client import Answer, entries_for, predict


class EvaluationError(Exception):
    """The gateway cannot be asked, or refuses; the text says what it answered."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        data = clip_retrieval.load(options.data, options.split)
        gateway, name = options.gateway, options.name
        images = _embed(
            "images",
            data.images,
            lambda read: predict(gateway, entries_for("clip", name), image=read()),
            options.concurrency,
        )
        texts = _embed(
            "texts",
            data.texts,
            lambda text: predict(gateway, entries_for("clip-text", name), text=text),
            options.concurrency,
        )
    except (clip_retrieval.DataError, EvaluationError, requests.RequestException, OSError) as error:
        print(f"eval_clip: {error}", file=sys.stderr)
        return 1
    result = clip_retrieval.recalls(images, texts, data.pairs)
    if options.json:
        print(
            json.dumps({direction: {f"R@{k}": value for k, value in row.items()} for direction, row in result.items()})
        )
        return 0
    table = Table(title=f"{name}: {len(images)} images, {len(texts)} texts")
    table.add_column("")
    for rank in clip_retrieval.RANKS:
        table.add_column(f"R@{rank}", justify="right")
    table.add_column("mean", justify="right")
    for direction, row in result.items():
        table.add_row(direction, *(f"{value:.1f}" for value in row.values()), f"{sum(row.values()) / len(row):.1f}")
    Console().print(table)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder as Chinese-CLIP publishes it, or a TSV file")
    parser.add_argument("--split", default="test", help="of a folder: which of its files (default: %(default)s)")
    parser.add_argument(
        "--gateway",
        default="http://127.0.0.1:3004",
        metavar="URL",
        help="address of the gateway (default: %(default)s)",
    )
    parser.add_argument(
        "--name", default="ViT-B-16__openai", help="Immich model name to ask for (default: %(default)s)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=4, metavar="N", help="requests at a time (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _embed[Item](
    what: str, items: Sequence[Item], ask: Callable[[Item], Answer], concurrency: int
) -> npt.NDArray[np.float32]:
    rows: list[npt.NDArray[np.float32]] = []
    with ThreadPoolExecutor(concurrency) as pool:
        groups = list(batched(items, 8 * concurrency))
        # In groups, so that not all images are read before the first one is sent.
        for group in track(groups, what, transient=True):
            rows += [_embedding(answer) for answer in pool.map(ask, group)]
    if not rows:
        raise EvaluationError(f"there are no {what}")
    return np.stack(rows)


def _embedding(answer: Answer) -> npt.NDArray[np.float32]:
    if answer.status != requests.codes.ok:
        raise EvaluationError(f"the gateway answered {answer.status}: {answer.body}")
    vector = np.asarray(json.loads(answer.body["clip"]), np.float32)
    # A stock model's may have any length.
    normalised: npt.NDArray[np.float32] = vector / np.linalg.norm(vector)
    return normalised


if __name__ == "__main__":
    sys.exit(main())
