"""Where the time of a request went: ``Server-Timing`` on the answer, and the gateway's own share of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mitmproxy.http import Response

    from immich_triton.core.observer import RequestDone

HEADER: Final = "Server-Timing"
"""W3C's: ``name;dur=milliseconds``, separated by commas. `announce` writes it, `parse` reads it."""

_FALLBACK: Final = "fallback"
"""A part without a duration: its description names the tasks that the upstream answered in Triton's place. That the
upstream was asked (``upstream``) does not tell: when it fails too, Triton is waited for and answers in the end."""

Who = Literal["triton", "fallback", "stranger"]

_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?")


def overhead(done: RequestDone) -> float | None:
    """Return the seconds that a request spent in the gateway itself: all that was neither waiting, Triton nor upstream.

    None for several tasks at a time, whose times overlap and add up to more than the whole.
    """
    if len(done.tasks) != 1 or done.route != "triton":
        return None
    return max(0.0, done.seconds - done.timing.waited - done.timing.at_triton - done.timing.at_upstream)


def announce(response: Response, done: RequestDone) -> None:
    """Add ``Server-Timing`` to an answer of ours, for browsers' tools, curl, mitmweb, and programs that compare."""
    parts = [f"{name};dur={1000 * seconds:.1f}" for name, seconds in _parts(done).items()]
    if done.fell_back:
        parts.append(f'{_FALLBACK};desc="{" ".join(done.fell_back)}"')
    response.headers[HEADER] = ", ".join(parts)


def who_answered(headers: Mapping[str, str]) -> Who:
    """Return who gave an answer to one task.

    "fallback" is the upstream in Triton's place; "stranger" whoever says nothing of it, such as the upstream itself
    when a request passes through.
    """
    parts = parse(headers)
    return "stranger" if "triton" not in parts else "fallback" if _FALLBACK in parts else "triton"


def parse(headers: Mapping[str, str]) -> dict[str, float]:
    """Return the seconds of each part, by name, as `announce` wrote them; empty for an answer that is none of ours.

    What another server wrote is read as far as it can be: a part without a duration takes 0 s.
    """
    seconds: dict[str, float] = {}
    for part in headers.get(HEADER, "").split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name:
            durations = [value for key, _, value in (each.partition("=") for each in parameters) if key == "dur"]
            seconds[name] = float(durations[0]) / 1000 if durations and _NUMBER.fullmatch(durations[0]) else 0.0
    return seconds


def describe(done: RequestDone) -> str:
    """Return the line for the log: what was asked, how it ended, where the time went. Nothing of the content."""
    asked = f"{', '.join(done.tasks) or 'nothing of ours'} ({'image' if done.has_image else 'text'})"
    times = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in _parts(done).items())
    fell_back = f", fell back: {', '.join(done.fell_back)}" if done.fell_back else ""
    return f"{asked}: {done.reason}, {done.status or 'passes through'}{fell_back}, milliseconds: {times}"


def _parts(done: RequestDone) -> dict[str, float]:
    """Return the seconds of each part, without those that say nothing."""
    parts = {"total": done.seconds}
    if done.route in ("triton", "split"):
        parts |= {"wait": done.timing.waited, "triton": done.timing.at_triton}
    if done.timing.at_upstream:
        parts["upstream"] = done.timing.at_upstream
    own = overhead(done)
    return parts if own is None else {**parts, "gateway": own}
