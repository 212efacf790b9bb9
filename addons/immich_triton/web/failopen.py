"""What becomes of a fault of ours: one line in the log, and the user gets what stock Immich answers."""

from __future__ import annotations

import logging
import traceback

logger = logging.getLogger(__name__)


def stock_instead(what: str, error: BaseException) -> None:
    """Say in one line that *what* is left to stock Immich because of *error*.

    The line names the class of the error and where it came from, but not what it says: that may quote the query or an
    address with a key in it. It is in the log at the level ``debug``.
    """
    logger.warning("%s is left to Immich as it is, because of a fault here: %s", what, brief(error))
    logger.debug("%s", what, exc_info=error)


def brief(error: BaseException) -> str:
    """Return the class of *error* and the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__module__}.{type(error).__qualname__}{place}"
