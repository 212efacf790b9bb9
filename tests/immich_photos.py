"""What the double of the Immich server has: photos with owners and texts, and Immich's own way to find a text."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

KEY: Final = "key-of-the-first-user"
OTHER_KEY: Final = "key-of-the-second-user"
WEAK_KEY: Final = "another-key-of-the-first-user"
"""Gives what the double's ``lacking`` does not name."""


def user_id(key: str) -> str:
    """Return the id of the user whom *key* belongs to."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, key))


def photo_id(number: int) -> str:
    """Return the id of photo *number*: a UUID of version 4, as Immich's are."""
    return str(uuid.UUID(int=number, version=4))


@dataclass
class Photo:
    """One photo; *number* is its age too: higher is newer."""

    number: int
    lines: Sequence[str] = ()
    owner: str = KEY
    favorite: bool = False
    albums: tuple[str, ...] = ()
    hidden_lines: Sequence[str] = ()
    locked: bool = False
    visibility: str = "timeline"
    second: int | None = None
    """When it was taken; its number, if nothing else is said."""
    emptied: bool = False
    """Whether Immich's search for text has lost it, until it is recognised again."""
    lost: Sequence[str] = ()
    """Lines that the next recognition will find."""
    read: int = 0
    """How often its text was recognised again, and its vector made."""
    embedded: int = 0

    @property
    def id(self) -> str:
        """Return its id."""
        return photo_id(self.number)

    @property
    def taken(self) -> str:
        """Return when it was taken, as Immich writes times."""
        second = self.number if self.second is None else self.second
        return f"2025-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000Z"

    def as_json(self, *, exif: bool) -> dict[str, Any]:
        """Return it with the keys that both searches give."""
        date = self.taken
        photo: dict[str, Any] = {
            "id": self.id,
            "createdAt": date,
            "ownerId": user_id(self.owner),
            "libraryId": None,
            "type": "IMAGE",
            "originalPath": f"/data/{self.number}.jpg",
            "originalFileName": f"图 {self.number}.jpg",
            "originalMimeType": "image/jpeg",
            "thumbhash": "1QcSHQRnh493V4dIh4eXh1h4kJUI",
            "fileCreatedAt": date,
            "fileModifiedAt": date,
            "localDateTime": date,
            "updatedAt": date,
            "isFavorite": self.favorite,
            "isArchived": False,
            "isTrashed": False,
            "visibility": self.visibility,
            "duration": "0:00:00.00000",
            "livePhotoVideoId": None,
            "people": [],
            "checksum": "3sB0WcjKyVCLMTSDyt6MNvNAUhs=",
            "isOffline": False,
            "hasMetadata": True,
            "duplicateId": None,
            "resized": True,
            "width": 1440,
            "height": 1080,
            "isEdited": False,
        }
        return photo | ({"exifInfo": {"city": None, "fNumber": 1.8, "fileSizeInByte": 90071992547}} if exif else {})


def tokens(text: str) -> list[str]:
    """Cut a text as Immich does for its search: overlapping pairs of ideographs, all else at blanks."""
    cut = []
    for run in re.findall(r"[\u4e00-\u9fff]+|[^\s\u4e00-\u9fff]+", text.lower()):
        one = "\u4e00" <= run[0] <= "\u9fff" and len(run) > 1
        cut += [run[at : at + 2] for at in range(len(run) - 1)] if one else [run]
    return cut


def finds(query: str, lines: Sequence[str]) -> bool:
    """Whether half of the query's tokens, or more, are tokens of the photo."""
    wanted, there = tokens(query), {token for line in lines for token in tokens(line)}
    return bool(wanted) and sum(token in there for token in wanted) * 2 >= len(wanted)
