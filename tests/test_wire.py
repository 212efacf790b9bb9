"""The contract with the private part of mitmproxy that `immich_triton.wire` uses, for the version in the lock file.

What the functions do is shown with a real mitmdump in test_passthrough.py; here is what they rely on.
"""

from __future__ import annotations

import inspect

from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import mode_servers, server


def test_the_proxyserver_keeps_its_handlers_by_client_id() -> None:
    assert Proxyserver().connections == {}
    assert "register_connection(handler.layer.context.client.id, handler)" in inspect.getsource(mode_servers)


def test_a_handler_has_transports_and_closes_them() -> None:
    assert list(inspect.signature(server.ConnectionHandler.close_connection).parameters)[:2] == ["self", "connection"]
    assert "transports" in server.ConnectionHandler.__annotations__
    assert {"reader", "writer", "handler"} <= set(server.ConnectionIO.__annotations__)
