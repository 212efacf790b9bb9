"""Words of Triton's HTTP API that more than one program of ours speaks.

Inference and what goes with it has one client, `immich_triton.triton.transport`, over tritonclient's asyncio half. The
supervisor and the doctor have no event loop and ask for one thing at a time: a load that blocks a thread for minutes, a
readiness within a second. tritonclient's other half would bring gevent for that, which breaks across threads; so they
send plain requests to these addresses.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

KEY_HEADER: Final = "x-triton-key"
"""The header that ``--http-restricted-api=inference,model-repository:x-triton-key=KEY`` makes Triton ask for."""

ABOUT: Final = "/v2"
LIVE: Final = "/v2/health/live"
INDEX: Final = "/v2/repository/index"


def key_headers(key: str) -> dict[str, str]:
    """Return the headers that carry *key*; none where there is none."""
    return {KEY_HEADER: key} if key else {}


def ready(model: str) -> str:
    """Return where Triton says whether *model* is ready."""
    return f"/v2/models/{quote(model, safe='')}/ready"


def config(model: str) -> str:
    """Return where Triton shows the config of *model*."""
    return f"/v2/models/{quote(model, safe='')}/config"


def control(model: str, action: str) -> str:
    """Return where *model* is loaded and unloaded (*action* ``load`` or ``unload``)."""
    return f"/v2/repository/models/{quote(model, safe='')}/{action}"
