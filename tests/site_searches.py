"""What the tests of searches share: a client's type, the versions of Immich, the photos of an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import requests
from immich_site import photo_id

Search = Callable[..., requests.Response]

VERSIONS: Final = ("2.7.5", "3.1.0", "3.2.0")

_NUMBERS: Final = {photo_id(number): number for number in range(2000)}


def numbers(answer: requests.Response) -> list[int]:
    """Return the numbers of the photos in a good answer, in order."""
    assert answer.status_code == 200, answer.text
    return [_NUMBERS[item["id"]] for item in answer.json()["assets"]["items"]]
