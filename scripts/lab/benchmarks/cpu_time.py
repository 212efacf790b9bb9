"""CPU time of the services that are compared: what a request costs them, which a busy machine changes little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.service import listener_of
from immich_triton.server import processes

STUB: Final = "triton_python_backend_stub"
"""The program that runs a model of the Python backend; its first argument is the model's file."""

DECODING: Final = "immich_pipelines.decoding.server"
"""The module that decodes images."""

Clock = Callable[[], float]
"""Returns the CPU time used so far, in seconds."""


def of(urls: Sequence[str]) -> Clock | None:
    """Return the clock of all processes of the services at *urls*; None unless all listen on this machine."""
    found = [listener_of(url) for url in urls]
    roots = [pid for pid in found if pid is not None]
    if not roots or len(roots) < len(found):
        return None
    # The processes that decode images for Triton are none of its descendants, but belong to its session.
    return lambda: sum(map(processes.cpu_seconds, {pid for root in roots for pid in _members(root)}))


def by_process(urls: Sequence[str]) -> dict[str, tuple[int, float]]:
    """Return how many processes of a kind the services at *urls* have, and their CPU seconds so far, by name.

    A model's are called as the model, those that decode images ``decoding``, all others as their program. What is alone
    in its kind, and has one thread that works, does no more requests in a second than fit into it.
    """
    roots = {pid for url in urls if (pid := listener_of(url)) is not None}
    found: dict[str, tuple[int, float]] = {}
    for pid in {pid for root in roots for pid in _members(root)}:
        count, seconds = found.get(name := name_of(pid), (0, 0.0))
        found[name] = count + 1, seconds + processes.cpu_seconds(pid)
    return found


def name_of(pid: int) -> str:
    """Return what the process *pid* is called in `by_process`."""
    arguments = processes.arguments(pid)
    if not arguments:
        return "ended"
    program = Path(arguments[0]).name
    if program == STUB:
        return Path(arguments[1]).parents[1].name
    if DECODING in arguments:
        return "decoding"
    return Path(arguments[1]).name if program.startswith("python") and len(arguments) > 1 else program


def _members(root: int) -> set[int]:
    return {*processes.tree(root), *(pid for pid in processes.pids() if processes.session(pid) == root)}
