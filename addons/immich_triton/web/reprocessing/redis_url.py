"""The address of Immich's Redis, as an option gives it."""

from __future__ import annotations

import importlib.util
from typing import ClassVar, Final, override
from urllib.parse import parse_qs, urlsplit

from immich_triton.core.option_kinds import Kind
from immich_triton.core.secrets import secret

SCHEMES: Final = ("redis", "rediss", "unix")
NEEDED: Final = ("bullmq", "redis")
"""Modules of requirements-web.lock without which the address is of no use."""


class RedisUrl(Kind[str]):
    """An address without a password, or where one stands that has a password; empty means none."""

    hidden: ClassVar[bool] = True

    @property
    @override
    def allowed(self) -> str:
        return "redis:// URL, file:PATH or env:NAME"

    @override
    def read(self, name: str, value: str) -> str:
        if not value:
            return ""
        open_to_all = value.partition(":")[0] in SCHEMES
        url = value if open_to_all else secret(name, value)
        try:
            parts = urlsplit(url)
            usable = parts.scheme in SCHEMES and parts.port != 0
        except ValueError:  # the port is no number
            usable = False
        if not usable or not (parts.path if parts.scheme == "unix" else parts.hostname):
            raise ValueError(f"{name} must give an address like redis://redis:6379/0")
        if open_to_all and (parts.password is not None or "password" in parse_qs(parts.query)):
            raise ValueError(
                f"{name} must not hold a password: everybody on this machine can read a command line. Write the whole "
                "address to a file that only you can read, and give file:PATH of that"
            )
        if missing := [module for module in NEEDED if importlib.util.find_spec(module) is None]:
            raise ValueError(f"{name} needs {' and '.join(missing)}: install requirements-web.lock")
        return url
