"""The settings of the site: a typed, checked snapshot of its options."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from immich_triton.core.secrets import secret
from immich_triton.web.options import RANGES, SETTINGS

if TYPE_CHECKING:
    from mitmproxy.options import Options

SWITCH = {"on": True, "true": True, "off": False, "false": False}

LARGEST_WEIGHT = 100.0

DATABASE_SCHEMES = ("postgresql://", "postgres://")


@dataclass(frozen=True)
class Settings:
    """The options without their prefix; ``ocr_timeout`` is in seconds."""

    ocr_prefix: bool
    hybrid: bool
    depth: int
    clip_weight: float
    ocr_weight: float
    rank_constant: int
    ocr_timeout: float
    ocr_lookups: int
    keep_host: bool
    forwarded: bool
    database_url: str = field(repr=False)

    @property
    def searches(self) -> bool:
        """Whether any search has to be looked at."""
        return self.ocr_prefix or self.hybrid

    @classmethod
    def read(cls, options: Options) -> Settings:
        """Take the values out of mitmproxy's options. Raises ValueError with the option's name and what it allows."""
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            value: Any = getattr(options, setting.name)
            if setting.name in RANGES:
                low, high = RANGES[setting.name]
                if not low <= value <= high:
                    raise ValueError(f"{setting.name} must lie between {low} and {high}, not {value}")
            elif setting.name.endswith("_weight"):
                value = _weight(setting.name, value)
            elif setting.name == "web_database_url":
                value = _database_url(setting.name, secret(setting.name, value))
            else:
                value = _switch(setting.name, value)
            values[setting.name.removeprefix("web_")] = value
        if not values["clip_weight"] and not values["ocr_weight"]:
            raise ValueError("web_clip_weight and web_ocr_weight must not both be 0: nothing would be ranked")
        values["ocr_timeout"] /= 1000
        return cls(**values)


def _database_url(name: str, value: str) -> str:
    if value and not value.startswith(DATABASE_SCHEMES):
        raise ValueError(f"{name} must point to an address that begins with {' or '.join(DATABASE_SCHEMES)}")
    return value


def _switch(name: str, value: str) -> bool:
    try:
        return SWITCH[value.lower()]
    except KeyError:
        raise ValueError(f"{name} must be on or off, not {value!r}") from None


def _weight(name: str, value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= LARGEST_WEIGHT:
        raise ValueError(f"{name} must be a number between 0 and {LARGEST_WEIGHT:g}, not {value!r}")
    return weight
