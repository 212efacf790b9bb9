"""The kinds of options: what mitmproxy parses, what is allowed, and the value that becomes of it.

A `Kind` knows nothing of mitmproxy and reads one value; what several options have to do with each other is checked by
the settings that they belong to.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, override
from urllib.parse import urlsplit

from immich_triton.core.secrets import secret

MEBIBYTE: Final = 1 << 20

type Address = tuple[str, int]
"""Host and port."""


class Kind[T](ABC):
    """What an option may be. ``type`` is mitmproxy's, by which it parses a command line."""

    type: ClassVar[Any] = str
    hidden: ClassVar[bool] = False
    """Whether the value must not be shown to anybody."""

    @property
    def allowed(self) -> str:
        """What may be given, in a few words for the documentation; empty where everything may."""
        return ""

    @abstractmethod
    def read(self, name: str, value: Any) -> T:
        """Return what *value* of the option *name* means. Raises ValueError with the name and what is allowed."""


class Flag(Kind[bool]):
    """mitmproxy's own switch, set by naming it."""

    type: ClassVar[Any] = bool

    @property
    @override
    def allowed(self) -> str:
        return "true, false"

    @override
    def read(self, name: str, value: bool) -> bool:
        return value


class OnOff(Kind[bool]):
    """A switch in words, so that ``=off`` can be said of what is on by itself."""

    WORDS: ClassVar = {"on": True, "true": True, "off": False, "false": False}

    @property
    @override
    def allowed(self) -> str:
        return "on, off"

    @override
    def read(self, name: str, value: str) -> bool:
        try:
            return self.WORDS[value.lower()]
        except KeyError:
            raise ValueError(f"{name} must be on or off, not {value!r}") from None


@dataclass(frozen=True)
class Integer(Kind[int]):
    """A whole number from *low* to *high*, both included; *why* says where a bound comes from."""

    type: ClassVar[Any] = int
    low: int
    high: int
    why: str = ""

    @property
    @override
    def allowed(self) -> str:
        return f"{self.low} to {self.high}"

    @override
    def read(self, name: str, value: int) -> int:
        if not self.low <= value <= self.high:
            why = f" ({self.why})" if self.why else ""
            raise ValueError(f"{name} must lie between {self.low} and {self.high}{why}, not {value}")
        return value


class Mebibytes(Integer):
    """A size in MiB, read as bytes."""

    @override
    def read(self, name: str, value: int) -> int:
        return super().read(name, value) * MEBIBYTE


@dataclass(frozen=True)
class Milliseconds(Kind[float]):
    """A time from *low* to *high* milliseconds, read as seconds."""

    type: ClassVar[Any] = int
    low: int
    high: int

    @property
    @override
    def allowed(self) -> str:
        return Integer(self.low, self.high).allowed

    @override
    def read(self, name: str, value: int) -> float:
        return Integer(self.low, self.high).read(name, value) / 1000


@dataclass(frozen=True)
class Number(Kind[float]):
    """A number from *low* to *high*, both included, with an *example*. A text to mitmproxy, which has no fractions."""

    low: float
    high: float
    example: str = ""

    @property
    @override
    def allowed(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    @override
    def read(self, name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high:
            example = f", e.g. {self.example}" if self.example else ""
            raise ValueError(f"{name} must be a number between {self.low:g} and {self.high:g}{example}, not {value!r}")
        return number


class Folder(Kind[Path]):
    """A folder; ``~`` is the home directory. Whether it exists is looked at where it is used."""

    @override
    def read(self, name: str, value: str) -> Path:
        return Path(value).expanduser()


class SocketFile(Kind[Path | None]):
    """A socket in the file system; empty means none. Whether anybody listens is looked at where it is used."""

    @property
    @override
    def allowed(self) -> str:
        return "path or empty"

    @override
    def read(self, name: str, value: str) -> Path | None:
        return Path(value).expanduser() if value else None


@dataclass(frozen=True)
class Url(Kind[str]):
    """The address of a server, read without a slash at the end; empty means none, where it is *optional*."""

    optional: bool = False

    @property
    @override
    def allowed(self) -> str:
        return "http:// or https:// URL"

    @override
    def read(self, name: str, value: str) -> str:
        if self.optional and not value:
            return ""
        url = value.rstrip("/")
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # the port is no number
            usable = False
        if not usable:
            raise ValueError(f"{name} must start with http:// or https:// and name a host, not {value!r}")
        return url


class HostPort(Kind[Address | None]):
    """Where to listen; empty means nowhere."""

    @property
    @override
    def allowed(self) -> str:
        return "HOST:PORT or empty"

    @override
    def read(self, name: str, value: str) -> Address | None:
        if not value:
            return None
        host, colon, port = value.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""
        if not (host and colon and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise ValueError(f"{name} must be empty or look like 127.0.0.1:9464 or [::1]:9464, not {value!r}")
        return host, int(port)


class Secret(Kind[str]):
    """Where a secret stands, see `secret`; read as the secret itself, empty when there is none."""

    hidden: ClassVar[bool] = True

    @property
    @override
    def allowed(self) -> str:
        return "file:PATH or env:NAME"

    @override
    def read(self, name: str, value: str) -> str:
        return secret(name, value)
