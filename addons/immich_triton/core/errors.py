"""The error that ends a request with an answer."""

from __future__ import annotations


class ProtocolError(Exception):
    """The request cannot be processed; carries the answer: an HTTP status and the JSON ``detail``."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
