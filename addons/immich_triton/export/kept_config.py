"""A ``config.pbtxt`` that somebody edited, completed with the outputs that a newer pipeline gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_TOKENS: Final = re.compile(r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*""")
"""Strings and comments of protobuf's text format: a # within a string begins no comment."""
_OUTPUTS: Final = re.compile(r"^output \[\n(.*?)^\]", re.MULTILINE | re.DOTALL)
_OUTPUT: Final = re.compile(r'\{ name: "(\w+)"[^{}]*\}')
"""One output as the shipped configs write it: they are the project's own, one form is enough."""


def complete(kept: bytes, shipped: bytes) -> bytes:
    """Return *kept* with the outputs that *shipped* declares and it lacks, appended at its end.

    Triton refuses an output that a pipeline gives and its config does not declare. The text format takes a repeated
    field in several places, so nothing of what somebody wrote is touched.
    """
    text = kept.decode("utf-8", "surrogateescape")
    named = {token[1:-1] for token in _TOKENS.findall(text) if not token.startswith("#")}
    lines = [f"output [ {output} ]" for name, output in _outputs(shipped.decode()).items() if name not in named]
    if not lines:
        return kept
    before = text if text.endswith("\n") else f"{text}\n"
    return (before + "\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _outputs(text: str) -> Mapping[str, str]:
    return {found[1]: found[0] for block in _OUTPUTS.finditer(text) for found in _OUTPUT.finditer(block[1])}
