"""The body of a search: what is asked of us, and what we have to ask Immich in its place. Pure.

Two shapes are understood. The flat one has its filters beside the query and pages by number::

    {"query": "cat", "language": "en-US", "page": 1, "size": 100, "isFavorite": true}

Immich 3.2 and later also has ``filter``; a mix of both is 400 there, and a smart search in it has one page only::

    {"query": "cat", "size": 100, "filter": {"isFavorite": {"eq": true}}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from immich_triton.immich.api import METADATA, SMART
from immich_triton.web.prefix import Words, split

Kind = Literal["text", "hybrid", "filtered", "nothing"]
"""``text``: photos by their text. ``hybrid``: by picture and text. ``filtered``: by picture, among those with the
text. ``nothing``: an ``ocr:`` without words."""

Body = Mapping[str, Any]

LARGEST_PAGE: Final = 1000
LONGEST_QUERY: Final = 1000
"""Characters. The machine learning reads 52 to 77 tokens of a query; a longer one is nobody's search for a photo."""
DEFAULT_SIZE: Final[Mapping[str, int]] = {SMART: 100, METADATA: 250}
"""Immich's own: photos on a page when the request does not say."""

ONLY_SMART: Final = frozenset({"query", "queryAssetId", "language"})
NO_FILTERS: Final = frozenset({"order", "orderBy", "withStacked", "withPeople", "cursor"})
"""What the smart search ignores, and what says how the metadata search answers instead of what it finds."""


@dataclass(frozen=True)
class Question:
    """A search that is ours to answer. *picture* and *text* are what to look for in each; *page* counts from 1."""

    kind: Kind
    route: str
    body: Body
    picture: str
    text: str
    page: int
    size: int

    @property
    def structured(self) -> bool:
        """Whether the filters stand in ``filter`` (Immich 3.2 and later)."""
        return "filter" in self.body

    @property
    def of_albums(self) -> bool:
        """Whether only photos of some albums are asked for.

        Since 3.1 the metadata search finds those of all members then, and the smart search only one's own.
        """
        filters = self.body["filter"] if self.structured else self.body
        return bool(filters.get("albumIds")) or bool(self.structured and filters.get("or"))

    def smart(self, *, size: int | None = None, page: int = 1, text: str | None = None) -> dict[str, Any]:
        """Return the body of Immich's smart search for the picture, with every filter as it came.

        *text* is another spelling of the text that the photos must have; empty: any photo.
        """
        body = {**self.body, "query": self.picture}
        wanted = self.text if text is None else text
        if self.kind == "filtered" and wanted:
            body |= self._with_text(wanted)
        return self._cut(body, size, page)

    def metadata(self, text: str | None, *, size: int, page: int = 1) -> dict[str, Any]:
        """Return the body of Immich's metadata search for photos with *text*, with every filter as it came."""
        more = {} if text is None else self._with_text(text)
        return self._cut(self._without_picture() | more, size, page)

    @property
    def can_name(self) -> bool:
        """Whether one photo can be asked for beside the filters: not where they say something about ids already."""
        return "id" not in (self.body["filter"] if self.structured else self.body)

    def naming(self, photo: str) -> dict[str, Any]:
        """Return the body of Immich's metadata search for one *photo*, with every filter as it came."""
        named = {"filter": {**self.body["filter"], "id": {"eq": photo}}} if self.structured else {"id": photo}
        return self._cut(self._without_picture() | named, 1, 1)

    def _without_picture(self) -> dict[str, Any]:
        return {key: value for key, value in self.body.items() if key not in ONLY_SMART | NO_FILTERS}

    def _with_text(self, text: str) -> dict[str, Any]:
        if self.structured:
            return {"filter": {**self.body["filter"], "ocr": {"matches": text}}}
        return {"ocr": text}

    def _cut(self, body: dict[str, Any], size: int | None, page: int) -> dict[str, Any]:
        if size is not None:
            body["size"] = size
            if not self.structured:
                body["page"] = page
        return body

    def key(self) -> bytes:
        """Return what two pages of one search have in common, in a few bytes."""
        common = orjson.dumps([self.route, {**self.body, "page": None}], option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(common).digest()


def parse(route: str, content: bytes, *, prefix: bool, hybrid: bool) -> Question | None:
    """Return what is ours in a search, or None when stock Immich is to answer it.

    *prefix* and *hybrid* say whether those parts are switched on. Left to Immich is what it would refuse, so that it
    says why; a search by an example photo; and one that has a filter by text already, since a second one cannot be
    added without changing the first.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict) or "queryAssetId" in body or _has_text_filter(body):
        return None
    query, page, size = body.get("query"), body.get("page", 1), body.get("size", DEFAULT_SIZE[route])
    if not isinstance(query, str) or not query.strip() or len(query) > LONGEST_QUERY or not _is_of_one_shape(body):
        return None
    if not _whole(page) or not _whole(size) or page < 1 or not 1 <= size <= LARGEST_PAGE:
        return None
    words = split(query)
    if words.text is not None and prefix:
        kind: Kind = "nothing" if not words.text else "filtered" if words.picture else "text"
    elif hybrid:
        kind, words = "hybrid", Words(query, query.strip())
    else:
        return None
    if route == METADATA and kind not in ("text", "nothing"):
        return None  # its query means nothing to Immich; the web app sends one while the smart search is switched off
    return Question(kind, route, body, words.picture, words.text or "", page, size)


def _has_text_filter(body: Body) -> bool:
    filters = body.get("filter")
    return bool(body.get("ocr")) or (isinstance(filters, dict) and "ocr" in filters)


def _is_of_one_shape(body: Body) -> bool:
    return "filter" not in body or (isinstance(body["filter"], dict) and "page" not in body)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
