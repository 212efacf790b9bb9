"""The typefaces of the pages: Debian packages, so that everybody renders the same glyphs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import ImageFont

from ocr_eval.texts import Script

FONT_FOLDER: Final = Path("/usr/share/fonts")


@dataclass(frozen=True)
class Face:
    """One face: its Debian package, its file below ``/usr/share/fonts``, its index in a collection, its scripts."""

    package: str
    file: str
    scripts: frozenset[Script]
    index: int = 0

    @property
    def path(self) -> Path:
        """Where the package puts the file."""
        return FONT_FOLDER / self.file

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """Load the face at *size* pixels per em."""
        return _load(self.path, size, self.index)


@lru_cache(maxsize=512)
def _load(path: Path, size: int, index: int) -> ImageFont.FreeTypeFont:
    # BASIC layout: Pillow's Raqm layout depends on libraries of the system, and the pixels with it.
    return ImageFont.truetype(str(path), size, index=index, layout_engine=ImageFont.Layout.BASIC)


_SIMPLIFIED = frozenset({Script.SIMPLIFIED, Script.MIXED})
_TRADITIONAL = frozenset({Script.TRADITIONAL})
_LATIN = frozenset({Script.ENGLISH, Script.DIGITS})
_NOTO_SANS, _NOTO_SERIF = "opentype/noto/NotoSansCJK-Regular.ttc", "opentype/noto/NotoSerifCJK-Bold.ttc"

FACES: Final = (
    Face("fonts-noto-cjk", _NOTO_SANS, _SIMPLIFIED | {Script.DIGITS}, 2),
    Face("fonts-noto-cjk", _NOTO_SANS, _TRADITIONAL, 3),
    Face("fonts-noto-cjk", _NOTO_SERIF, _SIMPLIFIED, 2),
    Face("fonts-noto-cjk", _NOTO_SERIF, _TRADITIONAL, 3),
    Face("fonts-wqy-microhei", "truetype/wqy/wqy-microhei.ttc", _SIMPLIFIED | _TRADITIONAL),
    Face("fonts-wqy-zenhei", "truetype/wqy/wqy-zenhei.ttc", _SIMPLIFIED),
    Face("fonts-arphic-ukai", "truetype/arphic/ukai.ttc", _SIMPLIFIED, 0),
    Face("fonts-arphic-ukai", "truetype/arphic/ukai.ttc", _TRADITIONAL, 2),
    Face("fonts-arphic-uming", "truetype/arphic/uming.ttc", _TRADITIONAL, 2),
    Face("fonts-liberation", "truetype/liberation/LiberationSans-Regular.ttf", _LATIN),
    Face("fonts-liberation", "truetype/liberation/LiberationSerif-Italic.ttf", frozenset({Script.ENGLISH})),
    Face("fonts-liberation", "truetype/liberation/LiberationMono-Bold.ttf", _LATIN),
    Face("fonts-dejavu-core", "truetype/dejavu/DejaVuSans-Bold.ttf", _LATIN),
    Face("fonts-dejavu-core", "truetype/dejavu/DejaVuSerif.ttf", _LATIN),
)
"""A simplified text is set in the mainland form of a collection, a traditional one in the form of Taiwan."""


class FontsMissingError(RuntimeError):
    """Fonts are not installed; the message names the Debian packages."""


def faces(script: Script) -> Sequence[Face]:
    """Return the faces that can set *script*."""
    return [face for face in FACES if script in face.scripts]


def missing_packages() -> list[str]:
    """Return the Debian packages of which a file is not there, in alphabetical order."""
    return sorted({face.package for face in FACES if not face.path.is_file()})


def require_fonts() -> None:
    """Raise `FontsMissingError` with the command that installs what is missing."""
    if packages := missing_packages():
        raise FontsMissingError(
            "the pages are set in fonts of Debian packages that are not installed here. Install them with\n"
            f"    apt-get install -y --no-install-recommends {' '.join(packages)}"
        )


def fonts_digest() -> str:
    """Return the hex SHA-256 over the files of the fonts: another version of a package draws otherwise."""
    digest = hashlib.sha256()
    for path in sorted({face.path for face in FACES}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def absent_characters(face: Face, text: Iterable[str]) -> set[str]:
    """Return the characters of *text* for which *face* has no glyph (it would print a box instead)."""
    font = face.at(32)
    # U+FFFF is a noncharacter: no font has it, so this is the glyph that stands for "not there".
    nothing = font.getmask("\uffff")
    blank = (nothing.size, bytes(nothing))
    absent = set()
    for character in set(text) - {" "}:
        mask = font.getmask(character)
        if (mask.size, bytes(mask)) == blank:
            absent.add(character)
    return absent
