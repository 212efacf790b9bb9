"""Requests with urllib to servers of this machine, past any proxy that the environment names."""

from __future__ import annotations

import urllib.request
from typing import Final

OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""As `urllib.request.urlopen`, but HTTP_PROXY says nothing to it: a proxy is another machine, with a loopback of its
own, and would answer for our server."""
