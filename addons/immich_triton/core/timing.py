"""Where the time of a request went: ``Server-Timing`` on the answer, and the gateway's own share of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mitmproxy.http import Response

    from immich_triton.core.observer import RequestDone

HEADER: Final = "Server-Timing"


def overhead(done: RequestDone) -> float | None:
    """Return the seconds that a request spent in the gateway itself: all that was neither waiting, Triton nor upstream.

    None for several tasks at a time, whose times overlap and add up to more than the whole.
    """
    if len(done.tasks) != 1 or done.route != "triton":
        return None
    return max(0.0, done.seconds - done.clock.waited - done.clock.at_triton - done.clock.at_upstream)


def announce(response: Response, done: RequestDone) -> None:
    """Add ``Server-Timing`` (W3C; milliseconds) to an answer of ours, for browsers' tools, curl and mitmweb."""
    response.headers[HEADER] = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in _parts(done).items())


def describe(done: RequestDone) -> str:
    """Return the line for the log: what was asked, how it ended, where the time went. Nothing of the content."""
    asked = f"{', '.join(done.tasks) or 'nothing of ours'} ({'image' if done.has_image else 'text'})"
    times = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in _parts(done).items())
    return f"{asked}: {done.reason}, {done.status or 'passes through'}, milliseconds: {times}"


def _parts(done: RequestDone) -> dict[str, float]:
    """Return the seconds of each part, without those that say nothing."""
    parts = {"total": done.seconds}
    if done.route in ("triton", "split"):
        parts |= {"wait": done.clock.waited, "triton": done.clock.at_triton}
    if done.clock.at_upstream:
        parts["upstream"] = done.clock.at_upstream
    own = overhead(done)
    return parts if own is None else {**parts, "gateway": own}
