"""The contract with the private part of mitmproxy that `immich_triton.wire` uses, for the version in the lock file.

What the functions do is shown with a real mitmdump in test_passthrough.py; here is what they rely on.
"""

from __future__ import annotations

import inspect

from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import mode_servers, server
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.layers.tls import TLSLayer


def test_the_proxyserver_keeps_its_handlers_by_client_id() -> None:
    assert Proxyserver().connections == {}
    assert "register_connection(handler.layer.context.client.id, handler)" in inspect.getsource(mode_servers)


def test_a_handler_has_transports_and_closes_them() -> None:
    assert list(inspect.signature(server.ConnectionHandler.close_connection).parameters)[:2] == ["self", "connection"]
    assert "transports" in server.ConnectionHandler.__annotations__
    assert {"reader", "writer", "handler"} <= set(server.ConnectionIO.__annotations__)


def test_a_tap_is_in_place_before_the_handler_begins_to_read() -> None:
    for method, hook in (("handle_client", "ClientConnectedHook"), ("open_connection", "ServerConnectedHook")):
        source = inspect.getsource(getattr(server.ConnectionHandler, method))
        assert source.index(hook) < source.index("self.handle_connection(")
    source = inspect.getsource(server.ConnectionHandler.handle_connection)
    assert source.index("reader = self.transports[connection].reader") < source.index("await reader.read(")


def test_the_layer_of_a_tls_client_encrypts() -> None:
    assert "tls" in TLSLayer.__annotations__
    assert "self.context.layers.append(self)" in inspect.getsource(Layer.__init__)
    assert "self.tls.sendall(data)" in inspect.getsource(TLSLayer.send_data)
    assert "self.tls.bio_read(65535)" in inspect.getsource(TLSLayer.tls_interact)


def test_the_http_layer_keeps_what_was_closed() -> None:
    assert "connections" in HttpLayer.__annotations__
    assert "del self.connections" not in inspect.getsource(HttpLayer)
    assert "self.connections.pop" not in inspect.getsource(HttpLayer)
