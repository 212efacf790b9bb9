"""Finding what must not be told: a query, a picture, a token, in whatever spelling a log or a file may have it."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import orjson
import pytest

LEAST = 4
"""Bytes by which something is told from noise."""
WINDOW = 12
"""Bytes of an image by which it could be recognised; a line of log has room for that many."""


def spellings(secret: bytes) -> set[bytes]:
    """Return how *secret* may look in a text: as it is, escaped by Python or JSON, quoted, hexadecimal, Base64."""
    seen = {secret, repr(secret)[2:-1].encode(), secret.hex().encode(), quote(secret).encode()}
    for lead in range(3):
        coded = base64.b64encode(bytes(lead) + secret)
        seen.add(coded[4 if lead else 0 : -4])  # what does not depend on the neighbours
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        pass
    else:
        seen |= {ascii(text)[1:-1].encode(), orjson.dumps(text)[1:-1], text.encode("utf-16-le")}
    return {spelling for spelling in seen if len(spelling) >= LEAST}


class Secret(NamedTuple):
    """What must not be found, and what to call it when it is."""

    name: str
    value: bytes


def of_text(name: str, text: str) -> list[Secret]:
    """Three Chinese characters in a row, long words and numbers: a log that cuts a text short would still tell it."""
    pieces = re.findall(r"(?=([\u4e00-\u9fff]{3}))", text) + re.findall(r"[a-z]{4,}|[0-9-]{7,}", text)
    return [Secret(name, piece.encode()) for piece in pieces]


def of_image(name: str, image: bytes) -> list[Secret]:
    """Windows from all over the file, and the whole beginning of its body."""
    places = {*range(0, 200, WINDOW), *range(200, len(image) - WINDOW, 997)}
    windows = [image[place : place + WINDOW] for place in sorted(places)]
    return [Secret(name, window) for window in windows if len(set(window)) > 4]


def assert_absent(secrets: list[Secret], places: dict[str, bytes]) -> None:
    """Fail with the name of the secret and the line of the place where it is."""
    assert secrets
    for name, content in places.items():
        for secret in secrets:
            for spelling in spellings(secret.value):
                if (at := content.find(spelling)) >= 0:
                    line = content[content.rfind(b"\n", 0, at) + 1 : at + 200].split(b"\n")[0]
                    pytest.fail(f"{secret.name} {secret.value!r} is in {name}: {line!r}")


def files_of(*directories: Path) -> dict[str, bytes]:
    """Every file of a program; not its libraries, in which any row of small numbers occurs."""
    found = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    found = [path for path in found if ".so" not in path.name]
    return {str(path): path.read_bytes() for path in found}
