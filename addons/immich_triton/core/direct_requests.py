"""`requests`, but whoever is on this machine's loopback is asked past any proxy that the environment names."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import requests

from immich_triton.core.loopback import is_loopback


def request(method: str, url: str, **options: Any) -> requests.Response:
    """Do what `requests.request` does. A server on another machine is asked as HTTP_PROXY and NO_PROXY say.

    Raises ``requests.RequestException``.
    """
    with requests.Session() as session:
        session.trust_env = not on_loopback(url)
        session.verify = authorities()
        return session.request(method, url, **options)


def get(url: str, **options: Any) -> requests.Response:
    """Do what `requests.get` does, in the way of `request`."""
    return request("GET", url, **options)


def post(url: str, **options: Any) -> requests.Response:
    """Do what `requests.post` does, in the way of `request`."""
    return request("POST", url, **options)


def authorities() -> str | bool:
    """Return the file of certificates that the environment trusts, True for those that `requests` brings.

    `requests` itself does not know OpenSSL's variable, and none of them where it is to overlook the proxies.
    """
    named = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"))
    return next(filter(None, named), True)


def on_loopback(url: str) -> bool:
    """Whether *url* names a server of this machine."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:  # no address at all: requests says so in its own words
        return False
