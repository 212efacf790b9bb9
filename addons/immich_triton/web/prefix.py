"""What a person writes into the search bar: ``海边 ocr:发票`` is a picture of 海边 with the text 发票 in it. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# In any case, also as wide letters; the colon of an English or of a Chinese keyboard. Not the end of a longer word.
_PREFIX: Final = re.compile(r"(?<![0-9A-Za-z_])(?:ocr|ｏｃｒ)\s*[:：﹕]", re.IGNORECASE)


class Words(NamedTuple):
    """The two halves of a query. *text* is None when there is no ``ocr:``, and empty when nothing follows it."""

    picture: str
    text: str | None


def split(query: str) -> Words:
    """Split a query at the first ``ocr:``; what follows further ones belongs to the text as well."""
    picture, *texts = _PREFIX.split(query)
    if not texts:
        return Words(query, None)
    return Words(picture.strip(), " ".join(" ".join(texts).split()))
