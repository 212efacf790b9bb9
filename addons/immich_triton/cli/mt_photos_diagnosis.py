"""Looks at mt-photos-ai's API: whether it is there, takes the key, and has its models."""

from __future__ import annotations

from collections.abc import Iterator

import requests

from immich_triton.cli.diagnosis import detail
from immich_triton.cli.findings import Finding, error, ok, warning
from immich_triton.core import bounded_http
from immich_triton.core.bounded_http import Reply
from immich_triton.core.direct_requests import on_loopback
from immich_triton.immich.ml_client import cause, shown
from immich_triton.mt_photos.protocol import TITLE
from immich_triton.mt_photos.settings import WELL_KNOWN_KEY


def mt_photos(url: str, key: str = "") -> Iterator[Finding]:
    """Check what MT-Photos would ask at *url*, which has no trailing slash; *key* is empty for the well-known one."""
    start = "start it with immich-triton run --mt-photos, or say where it is: --mt-photos URL"
    try:
        answer = bounded_http.ask("POST", f"{url}/check", headers={"api-key": key or WELL_KNOWN_KEY})
    except requests.RequestException as problem:
        yield error(f"nothing answers at {shown(url)}: {cause(problem)}", start)
        return
    if answer.status == requests.codes.unauthorized:
        yield error(
            f"what answers MT-Photos at {shown(url)} does not accept {'this key' if key else 'the well-known key'}",
            "give the one that it was started with (--mt-photos-key of immich-triton run), and set it in MT-Photos too",
        )
        return
    if _title(answer) != TITLE:
        yield error(
            f"what answers at {shown(url)} is not ours: mt-photos-ai itself, or something else",
            f"{start}; an mt-photos-ai that still runs has the same port",
        )
        return
    yield ok(f"MT-Photos is answered at {shown(url)}, and the key is right")
    if not key and not on_loopback(url):
        yield warning(
            "it accepts a key that everybody knows",
            "choose one of your own, --mt-photos-key file:PATH, and set it in MT-Photos too",
        )
    try:
        ready = bounded_http.ask("GET", f"{url}/ping")
    except requests.RequestException as problem:
        yield error(f"{shown(url)} does not answer: {cause(problem)}", "see its log")
        return
    if ready.ok:
        yield ok("every route is ready for it")
    else:
        yield error(f"it is not ready: {detail(ready)}", "MT-Photos gets 503 until then; see above")


def _title(answer: Reply) -> object:
    try:
        body = answer.json()
    except ValueError:
        return None
    return body.get("title") if answer.ok and isinstance(body, dict) else None
