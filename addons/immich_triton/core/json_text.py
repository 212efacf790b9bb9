"""JSON as stock Immich ML writes it."""

from __future__ import annotations

import orjson


def dump(answer: object) -> bytes:
    """Serialise an answer as stock does: compact JSON; NumPy float32 values with their shortest digits."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
