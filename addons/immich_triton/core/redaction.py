"""What others say in their errors, without what they quote: a query, a text found in a photo, the bytes of an image.

At the default level the gateway logs what went wrong, never what with. The whole text goes to the log level ``debug``
(``--set termlog_verbosity=debug``), which is for a person who looks for a fault with data of their own.
"""

from __future__ import annotations

import re
import traceback
from typing import Final

LONGEST: Final = 300
"""Characters of an error that are kept."""

CUT: Final = "…"

BEGINNING: Final = 4096
"""Bytes of a query whose words are sought: tokenizers take 52 to 77 tokens."""

MOST_CAUSES: Final = 20
"""Errors that are told of a chain of causes."""

_WORD: Final = re.compile(r"[^\W_]+")
# Not the apostrophe of "can't"; the quotation that never ends goes to the end.
_QUOTED: Final = re.compile(r"""(?<!\w)b?(['"`])(?:\\.|(?!\1).)*(?:\1|$)""", re.DOTALL)
_BYTES: Final = re.compile(r"""\bb(['"])(?:\\.|(?!\1).)*(?:\1|$)""", re.DOTALL)
# As Triton's client words it when an answer is no JSON: all of that follows, and nothing tells where it ends.
_ANSWER: Final = re.compile(r"(?<=\nresponse: ).+", re.DOTALL)
_FOREIGN: Final = re.compile(r"[^\x20-\x7e]+|\\[xuU][0-9a-fA-F]{2,}")


def redact(text: str, payload: bytes = b"") -> str:
    """Return *text* without quotations, without what is no plain ASCII, and without any word of *payload*.

    *payload* is what the error is about, if it is short, like a query: its words go even where nothing marks them.
    """
    # Bounded before anything is sought in it: neither is ours.
    text = _ANSWER.sub(CUT, text[: 4 * LONGEST])
    text = _QUOTED.sub(lambda quoted: f"{quoted[1]}{CUT}{quoted[1]}", text)
    words = set(_WORD.findall(payload[:BEGINNING].decode("utf-8", "replace").lower()))
    text = _WORD.sub(lambda word: CUT if word[0].lower() in words else word[0], text)
    text = _FOREIGN.sub(CUT, text)
    return text if len(text) <= LONGEST else text[:LONGEST] + CUT


def without_bytes(text: str) -> str:
    """Return *text* without the bytes that ``repr`` put into it, as mitmproxy does with what it cannot read."""
    return _BYTES.sub(CUT, text)


def where(error: BaseException) -> str:
    """Return the class of an error, of its causes, and the lines of code that they came through; not what they say.

    An error may be its own cause, over others too: each is told once, `MOST_CAUSES` at most.
    """
    lines: list[str] = []
    told: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in told and len(told) < MOST_CAUSES:
        told.add(id(at))
        lines += [f"{type(at).__module__}.{type(at).__qualname__}", *traceback.format_tb(at.__traceback__)]
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(line.rstrip() for line in lines)
