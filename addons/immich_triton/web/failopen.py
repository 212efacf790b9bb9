"""What becomes of a fault of ours: one line in the log, and the user gets what stock Immich answers."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Final, Literal

from immich_triton.immich.api import Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from immich_triton.web.measurements import Measurements

logger = logging.getLogger(__name__)

Part = Literal["request", "search", "order", "script", "page"]

Reason = Literal["unreachable", "timeout", "shape", "internal"]
"""Immich could not be asked, took too long, or answered in another shape than it should; or it is our own fault."""

WHAT: Final[Mapping[Part, str]] = {
    "request": "a request",
    "search": "a search",
    "order": "an order to process photos again",
    "script": "the script of the menu",
    "page": "a page",
}


def stock_instead(part: Part, error: BaseException, measurements: Measurements) -> None:
    """Say in one line that *part* is left to stock Immich because of *error*, and count it.

    The line names the class of the error and where it came from, but not what it says: that may quote the query or an
    address with a key in it. It is in the log at the level ``debug``.
    """
    measurements.failed_open(part, reason_of(error))
    logger.warning("%s is left to Immich as it is, because of a fault here: %s", WHAT[part], brief(error))
    logger.debug("%s", WHAT[part], exc_info=error)


def reason_of(error: BaseException) -> Reason:
    """Return which kind of fault an *error* is."""
    if isinstance(error, Unreachable):
        return "unreachable"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "shape" if isinstance(error, ValueError) else "internal"


def brief(error: BaseException) -> str:
    """Return the class of *error* and the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__module__}.{type(error).__qualname__}{place}"
