"""Looks at the site in front of the Immich server: whether it is there, and Immich behind it."""

from __future__ import annotations

from collections.abc import Iterator

import requests

from immich_triton.cli.findings import Finding, error, ok
from immich_triton.core import bounded_http
from immich_triton.immich.api import SERVER_PING
from immich_triton.immich.ml_client import cause, shown
from immich_triton.immich.site_ping import PING, PONG


def site(url: str) -> Iterator[Finding]:
    """Check that the site answers, and that Immich answers through it. *url* has no trailing slash."""
    start = "start it with immich-triton run --web http://immich-server:2283, or say where it is: --site URL"
    try:
        answer = bounded_http.ask("GET", url + PING)
    except requests.RequestException as problem:
        yield error(f"nothing answers at {shown(url)}: {cause(problem)}", start)
        return
    if not answer.ok or answer.body != PONG.encode():
        yield error(
            f"what answers at {shown(url)} is not the site: searches there are Immich's own",
            f"{start}; a reverse proxy in front has to ask the site's port, not Immich's",
        )
        return
    yield ok(f"the site answers at {shown(url)}")
    try:
        through = bounded_http.ask("GET", url + SERVER_PING)
    except requests.RequestException as problem:
        yield error(f"{shown(url)} does not answer: {cause(problem)}", "see the site's log")
        return
    if through.ok:
        yield ok("Immich answers behind it")
    else:
        yield error(
            f"Immich does not answer behind the site: status {through.status}",
            "start Immich, or correct the address in immich-triton run --web URL",
        )
