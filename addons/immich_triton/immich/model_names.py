"""Immich's model names: the form in which they are compared."""

from __future__ import annotations

from typing import Final

_CLEAN: Final = str.maketrans(":\\/", "___", ".")


def clean_name(name: str) -> str:
    """Return a model name in its clean form, as stock does: ``a/ViT-B-16:_openai.`` is ``ViT-B-16__openai``.

    What counts is the part after the last slash, in which colon and backslash become ``_`` and dots are dropped.
    """
    return name.rsplit("/", 1)[-1].translate(_CLEAN)
