"""HTTP requests that end in time, whatever the other side does."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import requests

from immich_triton.core import direct_requests

SECONDS: Final = 10.0
LARGEST: Final = 4 << 20
"""Bytes of an answer that are read."""


@dataclass(frozen=True)
class Reply:
    """An answer: HTTP status, body, headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return self.status < HTTPStatus.BAD_REQUEST

    def json(self) -> Any:
        """Return the body, parsed. Raises ValueError when it is no JSON."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error


def ask(method: str, url: str, *, seconds: float | None = None, **options: Any) -> Reply:
    """Send a request; *options* are those of `requests.request`. Raises ``requests.RequestException``.

    The time-out of `requests` is one for each byte: who sends one now and then would keep it waiting for ever.
    """
    seconds = SECONDS if seconds is None else seconds
    found: list[Reply | requests.RequestException] = []

    def send() -> None:
        try:
            with direct_requests.request(method, url, timeout=seconds, stream=True, **options) as answer:
                body = answer.raw.read(LARGEST, decode_content=True) or b""
                found.append(Reply(answer.status_code, body, answer.headers))
        except requests.RequestException as error:
            found.append(error)
        except Exception as error:  # noqa: BLE001 - urllib3's own, while the body is read
            found.append(requests.ConnectionError(str(error) or repr(error)))

    thread = threading.Thread(target=send, name=f"ask {method}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise requests.Timeout(f"no answer within {seconds:g} s")
    if isinstance(found[0], requests.RequestException):
        raise found[0]
    return found[0]
