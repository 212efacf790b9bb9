"""What the tests of searches share: a client's type, the versions of Immich, the photos of an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import requests
from immich_photos import Photo, photo_id, user_id
from immich_site import ImmichSite
from postgres_server import ImmichDatabase

Search = Callable[..., requests.Response]

VERSIONS: Final = ("2.7.5", "3.1.0", "3.2.0")

_NUMBERS: Final = {photo_id(number): number for number in range(2000)}


def numbers(answer: requests.Response) -> list[int]:
    """Return the numbers of the photos in a good answer, in order."""
    assert answer.status_code == 200, answer.text
    return [_NUMBERS[item["id"]] for item in answer.json()["assets"]["items"]]


def fill(site: ImmichSite, database: ImmichDatabase, photos: list[Photo]) -> None:
    """Put *photos* into the double and, with their text, into its database."""
    site.photos += photos
    database.add_all((photo.id, user_id(photo.owner), photo.lines, photo.hidden_lines) for photo in photos)


def checks(site: ImmichSite) -> list[Any]:
    """Return the questions whether the caller may see one photo."""
    asked = [request.json for request in site.of("/metadata")]
    return [body for body in asked if "id" in body or "id" in body.get("filter", {})]
