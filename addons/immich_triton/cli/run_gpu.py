"""What ``--gpu`` adds to the commands that start Triton: what runs on which card, and why something cannot."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from immich_triton.cli import gpu_environment
from immich_triton.export.network_places import (
    DETECTOR,
    MOST_SESSIONS,
    MOVE,
    RECOGNIZER,
    how_to_move,
    names,
    places,
)
from immich_triton.server import graphics_cards
from immich_triton.server.graphics_cards import Card
from immich_triton.server.preflight import StartError


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--gpu`` to a command line."""
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="compute on the NVIDIA card, with what immich-triton setup --gpu installed; without a card, a driver or "
        "enough memory it does not start (default: off)",
    )


def cards() -> list[Card]:
    """Return the cards to compute on. Raises `StartError` when one of them cannot: Triton would use it all the same."""
    found = graphics_cards.look()
    for card in found:
        if reason := graphics_cards.unfit(card):
            raise StartError(reason)
    return found


def export_arguments(models: Path) -> list[str]:
    """Return what to give to ``export ocr``, so that version and names of an export for the CPU stay."""
    given = ["--gpu"]
    try:
        record = json.loads((models / RECOGNIZER / "export.json").read_text(encoding="utf-8"))
        return [*given, "--version", str(record["version"]), "--as", *map(str, record["names"])]
    except (OSError, ValueError, LookupError, TypeError):
        return given


def ocr_on_cpu(models: Path) -> bool:
    """Tell whether one of the default OCR networks is there and was exported for the CPU."""
    return any(place.name in (DETECTOR, RECOGNIZER) and not place.gpu for place in places(models))


def check(found: Sequence[Card], models: Path) -> Iterator[str]:
    """Yield what is worth a warning about the networks of *models* on the cards *found*, a sentence each.

    Raises `StartError` when none is placed on a GPU, or the memory does not even hold the weights.
    """
    placed = [place for place in places(models) if place.gpu]
    if not placed:
        raise StartError(
            f"--gpu is given, but no network in {models} is placed on a GPU: {MOVE['ocr_']} --models {models}, "
            "or leave --gpu out"
        )
    least, most = sum(place.least for place in placed), sum(place.most for place in placed)
    for card in found:
        if card.free is None:
            continue
        if least > card.free:
            raise StartError(
                f"{card.name} has {card.free} MiB free, and the weights of {names(placed)} alone take {least} MiB: "
                "close what else uses the card, export fewer models with --gpu, or leave --gpu out"
            )
        if most > card.free:
            yield (
                f"{card.name} has {card.free} MiB free, and {names(placed)} may take up to {most} MiB: requests fail "
                "when it is not enough; export fewer models with --gpu"
            )
    if (sessions := sum(place.sessions for place in placed)) > MOST_SESSIONS:
        yield (
            f"{sessions} sessions are made at the start, more than the {MOST_SESSIONS} that the shapes are meant for: "
            "it takes longer; remove models that no route needs"
        )


def summary(found: Sequence[Card], models: Path) -> Iterator[str]:
    """Yield which card serves what, and what stays on the CPU, a line each."""
    all_places = places(models)
    for card in found:
        yield f"  GPU {card.index:<12} {card}: {names([place for place in all_places if place.gpu])}"
    for place in all_places:
        if not place.gpu:
            how = how_to_move(place.name)
            yield f"  CPU              {place.name}" + (f": exported without --gpu; {how} moves it" if how else "")


def without(models: Path) -> Iterator[str]:
    """Yield what is worth a warning where ``--gpu`` is not given, a sentence each."""
    placed = [place for place in places(models) if place.gpu]
    if placed and gpu_environment.runtime() is None:
        yield (
            f"exported for a GPU, {names(placed)} cannot be loaded here: start with --gpu, or export them again "
            "without --gpu"
        )


def before_start(models: Path, *, gpu: bool) -> list[str]:
    """Return what to say before Triton starts over *models*, for who exports nothing. Raises `StartError`."""
    if not gpu:
        return [f"warning: {sentence}" for sentence in without(models)]
    found = cards()
    warnings = [f"warning: {sentence}" for sentence in check(found, models)]
    return [*warnings, *(line.strip() for line in summary(found, models))]
