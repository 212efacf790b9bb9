"""The question by which the site in front of the Immich server is told from Immich itself, and its answer."""

from __future__ import annotations

from typing import Final

PING: Final = "/immich-triton/ping"
"""Answered by the site without asking Immich; Immich answers such a path with the page of its web app."""

PONG: Final = "immich-triton site\n"
