"""Looks at the NVIDIA card: whether it can be used, and which network runs where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from immich_triton.cli import environment, gpu_environment
from immich_triton.cli.findings import Finding, error, note, ok, warning
from immich_triton.export.network_places import Place, how_to_move, names, places
from immich_triton.server import graphics_cards
from immich_triton.server.graphics_cards import Ask, Card
from immich_triton.server.preflight import StartError


def graphics(models: Path, ask: Ask = graphics_cards.ask) -> Iterator[Finding]:
    """Check the cards and their driver, and say where each network of the repository *models* runs."""
    all_places = places(models) if models.is_dir() else []
    placed = [place for place in all_places if place.gpu]
    try:
        cards = graphics_cards.look(ask)
    except StartError as problem:
        # Most machines have no card, and need none.
        yield (
            error(f"{names(placed)}: placed on a GPU, and {_cause(problem)}", _remedy(problem))
            if placed
            else note(f"no GPU is used: {_cause(problem)}")
        )
        return
    fit = True
    for card in cards:
        reason = graphics_cards.unfit(card)
        fit = fit and reason is None
        yield _card(card, reason, needed=bool(placed))
    if fit:
        yield from _memory(cards, placed)
        yield from _runtime(needed=bool(placed))
    for place in all_places:
        yield _place(place)


def _card(card: Card, reason: str | None, *, needed: bool) -> Finding:
    used = "" if card.used is None else f", {card.used} MiB in use"
    if reason is None:
        return ok(f"GPU {card.index}: {card}{used}")
    text, _, fix = reason.partition(": ")
    return error(f"GPU {card.index}: {text}", fix) if needed else note(f"GPU {card.index}: {text}")


def _memory(cards: list[Card], placed: list[Place]) -> Iterator[Finding]:
    least, most = sum(place.least for place in placed), sum(place.most for place in placed)
    for card in cards:
        # Not what is free now: the Triton that is looked at may be running.
        if card.memory is not None and least > card.memory:
            yield error(
                f"the weights of {names(placed)} take {least} MiB of the GPU, {card.name} has {card.memory}",
                "export fewer models with --gpu",
            )
        elif card.memory is not None and most > card.memory:
            yield warning(
                f"{names(placed)} may take up to {most} MiB of the GPU, {card.name} has {card.memory}",
                "requests fail when it is not enough: export fewer models with --gpu",
            )


def _runtime(*, needed: bool) -> Iterator[Finding]:
    if (found := gpu_environment.runtime()) is not None:
        yield ok(f"ONNX Runtime for GPUs {found}")
    elif environment.GPU_LOCK.exists() and environment.is_ready(made := environment.folder(environment.GPU_LOCK)):
        yield ok(f"ONNX Runtime for GPUs is in {made}, which --gpu takes")
    elif needed:
        yield error("ONNX Runtime for GPUs is not installed", "immich-triton setup --gpu, then immich-triton run --gpu")
    else:
        yield note("this card could be used: immich-triton setup --gpu, then immich-triton run --gpu")


def _place(place: Place) -> Finding:
    if place.gpu:
        shapes = f"{place.sessions} shapes" if place.sessions > 1 else "one session"
        return ok(f"{place.name} runs on the GPU: {shapes}, {place.least} to {place.most} MiB")
    how = how_to_move(place.name)
    return note(f"{place.name} runs on the CPU" + (f" ({how} would change that)" if how else ""))


def _cause(problem: StartError) -> str:
    return str(problem).partition(": ")[0]


def _remedy(problem: StartError) -> str:
    return str(problem).partition(": ")[2].replace(graphics_cards.WITHOUT, "or export again without --gpu")
