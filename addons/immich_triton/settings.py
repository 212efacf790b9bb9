"""The gateway's options: one table, from which mitmproxy's options and the README's table are made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader
    from mitmproxy.options import Options


def default_state_dir() -> Path:
    """Return the state directory of the XDG specification. Not in the project: it must outlive a fresh clone."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "immich-triton"


@dataclass(frozen=True)
class Setting:
    """One mitmproxy option; *shown_default* stands in the README where the real default depends on the machine."""

    name: str
    type: type
    default: Any
    help: str
    shown_default: str = ""


SETTINGS: Final = (
    Setting(
        "immich_triton_url",
        str,
        "http://127.0.0.1:8000",
        "Address of Triton's HTTP endpoint; https:// is understood too.",
    ),
    Setting(
        "immich_models",
        str,
        "triton_models",
        "Folder of the model repository that Triton serves. The gateway reads only the route.toml files in it, which "
        "say which Immich model names are answered by Triton, and reads them again when they change.",
    ),
    Setting(
        "immich_deadline",
        int,
        120,
        "Seconds an image request may take in all, waiting for Triton included, before it gets 503. Immich does not "
        "retry a failed photo, so wait long; it gives up by itself at 300.",
    ),
    Setting(
        "immich_query_deadline",
        int,
        10,
        "Seconds a text query may take in all: a person is waiting for the search result.",
    ),
    Setting(
        "immich_triton_timeout",
        int,
        60,
        "Seconds one call to Triton may take. A longer one counts as a fault of the server (it may hang): the call is "
        "given up and the request tried again within its deadline.",
    ),
    Setting(
        "immich_state_dir",
        str,
        str(default_state_dir()),
        "Folder for what must survive a restart: the ledger of CLIP model names that were ever answered by Triton.",
        shown_default="~/.local/state/immich-triton",
    ),
    Setting(
        "immich_allow_untrained",
        bool,
        False,
        "Answer from models with random weights too. Such models are made for tests; their search results are noise.",
    ),
)


@dataclass(frozen=True)
class Settings:
    """A typed snapshot of the options. Times are in seconds."""

    triton_url: str
    models: Path
    deadline: int
    query_deadline: int
    triton_timeout: int
    state_dir: Path
    allow_untrained: bool

    @classmethod
    def read(cls, options: Options) -> Settings:
        """Take the values out of mitmproxy's options. Raises ValueError with the option's name and what it allows."""
        for name in ("immich_deadline", "immich_query_deadline", "immich_triton_timeout"):
            value = getattr(options, name)
            if not 0 < value < 300:
                raise ValueError(f"{name} must lie between 0 and 300 s (Immich gives up at 300), not {value}")
        url = options.immich_triton_url.rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"immich_triton_url must start with http:// or https://, not {url!r}")
        return cls(
            triton_url=url,
            models=Path(options.immich_models).expanduser(),
            deadline=options.immich_deadline,
            query_deadline=options.immich_query_deadline,
            triton_timeout=options.immich_triton_timeout,
            state_dir=Path(options.immich_state_dir).expanduser(),
            allow_untrained=options.immich_allow_untrained,
        )


def declare(loader: Loader) -> None:
    """Declare every option to mitmproxy."""
    for setting in SETTINGS:
        loader.add_option(setting.name, setting.type, setting.default, setting.help)
