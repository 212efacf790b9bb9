"""The gateway's settings: a typed, checked snapshot of its options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from immich_triton.core.options import SETTINGS, Setting, default_state_dir

if TYPE_CHECKING:
    from mitmproxy.options import Options

__all__ = ["SETTINGS", "Setting", "Settings", "default_state_dir", "secret"]

MEBIBYTE: Final = 1 << 20

RANGES: Final[Mapping[str, tuple[int, int]]] = {
    # Immich gives up at 300 s.
    "immich_deadline": (1, 299),
    "immich_query_deadline": (1, 299),
    "immich_triton_timeout": (1, 299),
    "immich_upstream_timeout": (1, 3600),
    "immich_header_timeout": (1, 600),
    "immich_body_timeout": (1, 3600),
    "immich_drain_timeout": (0, 3600),
    "immich_max_body_mib": (1, 2048),
    "immich_max_waiting_mib": (1, 1 << 20),
    "immich_max_parts": (2, 1000),
    # Pillow refuses more by itself, whatever it is told.
    "immich_max_pixels": (1, 178_956_970),
    # More places than that the detector does not look at.
    "immich_max_faces": (1, 16_800),
    "immich_max_connections": (1, 1 << 20),
    "immich_max_at_triton": (0, 4096),
}
"""What the numbers may be, both ends included."""

FALLBACK_TASKS: Final = ("ocr", "facial-recognition")


@dataclass(frozen=True)
class Settings:
    """The options without their prefix. Times are in seconds, sizes in bytes; an empty secret means there is none."""

    triton_url: str
    models: Path
    deadline: int
    query_deadline: int
    triton_timeout: int
    state_dir: Path
    allow_untrained: bool
    max_at_triton: int
    fallback_tasks: frozenset[str]
    max_body: int
    max_waiting: int
    max_parts: int
    max_pixels: int
    max_faces: int
    max_connections: int
    header_timeout: int
    body_timeout: int
    upstream_timeout: int
    drain_timeout: int
    path_token: str
    triton_key: str
    api_url: str
    api_key: str

    @classmethod
    def read(cls, options: Options) -> Settings:
        """Take the values out of mitmproxy's options. Raises ValueError with the option's name and what it allows."""
        for name, (low, high) in RANGES.items():
            value = getattr(options, name)
            if not low <= value <= high:
                why = " (Immich gives up at 300)" if high == 299 else ""
                raise ValueError(f"{name} must lie between {low} and {high}{why}, not {value}")
        values: dict[str, Any] = {
            field.name: getattr(options, f"immich_{field.name}")
            for field in fields(cls)
            if hasattr(options, f"immich_{field.name}")
        }
        values |= {
            "triton_url": _url("immich_triton_url", options.immich_triton_url),
            "models": Path(options.immich_models).expanduser(),
            "state_dir": Path(options.immich_state_dir).expanduser(),
            "fallback_tasks": _fallback_tasks(options.immich_fallback_tasks),
            "max_body": options.immich_max_body_mib * MEBIBYTE,
            "max_waiting": options.immich_max_waiting_mib * MEBIBYTE,
            "path_token": _path_token(secret("immich_path_token", options.immich_path_token)),
            "triton_key": secret("immich_triton_key", options.immich_triton_key),
            "api_url": _url("immich_api_url", options.immich_api_url) if options.immich_api_url else "",
            "api_key": secret("immich_api_key", options.immich_api_key),
        }
        if values["max_body"] > values["max_waiting"]:
            raise ValueError("immich_max_waiting_mib must be at least immich_max_body_mib")
        if bool(values["api_url"]) != bool(values["api_key"]):
            raise ValueError("immich_api_url and immich_api_key belong together: set both, or none")
        return cls(**values)

    def __repr__(self) -> str:
        """Show no secret, wherever this ends up."""
        return f"Settings(triton_url={self.triton_url!r}, models={str(self.models)!r}, …)"


def secret(name: str, value: str) -> str:
    """Return the secret that the option *name* points to with ``file:PATH`` or ``env:NAME``; empty when it is empty.

    The secret itself is refused: everybody on the machine can read a command line, and mitmweb shows all options.
    Raises ValueError; the message never holds the value.
    """
    if not value:
        return ""
    kind, colon, place = value.partition(":")
    if colon and kind == "file":
        try:
            found = Path(place).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{name}: cannot read {place}: {error}") from error
    elif colon and kind == "env":
        found = os.environ.get(place, "").strip()
    else:
        raise ValueError(
            f"{name} must be file:PATH or env:NAME, not the secret itself: everybody on this machine can read a "
            "command line. Write it to a file that only you can read, and give file:PATH of that"
        )
    if not found:
        raise ValueError(f"{name}: {value} is empty")
    return found


def _url(name: str, value: str) -> str:
    url = value.rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is no number
        usable = False
    if not usable:
        raise ValueError(f"{name} must start with http:// or https:// and name a host, not {value!r}")
    return url


def _fallback_tasks(tasks: list[str]) -> frozenset[str]:
    if "clip" in tasks:
        raise ValueError(
            "immich_fallback_tasks must not name clip: another model's vectors have the same size, mix with ours "
            "unnoticed, and spoil the search for good"
        )
    if unknown := set(tasks) - set(FALLBACK_TASKS):
        raise ValueError(f"immich_fallback_tasks may name {' and '.join(FALLBACK_TASKS)}, not {sorted(unknown)}")
    return frozenset(tasks)


def _path_token(token: str) -> str:
    unreserved = token.isascii() and all(character.isalnum() or character in "-_~" for character in token)
    if token and (len(token) < 16 or not unreserved):
        raise ValueError(
            "immich_path_token must have at least 16 letters, digits, - or _; for example: "
            'python -c "import secrets; print(secrets.token_urlsafe(24))"'
        )
    return token
