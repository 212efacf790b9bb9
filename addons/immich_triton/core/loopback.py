"""What belongs to this machine alone: its loopback addresses, and requests to them past any proxy."""

from __future__ import annotations

import ipaddress
import urllib.request
from typing import Final

OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""As `urllib.request.urlopen`, but HTTP_PROXY says nothing to it: a proxy is another machine, with a loopback of its
own, and would answer for our server."""


def is_loopback(host: str) -> bool:
    """Tell whether a server that listens on *host* is out of reach for other machines."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
