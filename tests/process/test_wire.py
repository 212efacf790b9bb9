"""The contract with the private part of mitmproxy that `immich_triton.proxy.wire` uses, for the version in the lock.

What the functions do is shown with a real mitmdump in test_passthrough.py; here is what they rely on.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from gateway_process import ADDON, refused_start
from h11._readers import ChunkedReader
from mitmproxy import version
from mitmproxy.addonmanager import AddonManager
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import mode_servers, server
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import HttpLayer, _http1
from mitmproxy.proxy.layers.tls import TLSLayer

from immich_triton.proxy import wire


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


def test_an_addon_comes_to_the_end_of_the_chain_or_leaves_a_new_one_behind() -> None:
    assert "self.chain.append(" in inspect.getsource(AddonManager.add)
    assert "self.chain = [" in inspect.getsource(AddonManager.remove)
    assert "self.chain = []" in inspect.getsource(AddonManager.clear)


def test_a_chunked_body_is_read_by_a_reader_that_can_be_replaced() -> None:
    assert "return ChunkedReader()" in inspect.getsource(_http1.make_body_reader)
    # Else ours is needed no more.
    assert "HTTP trailers are not implemented yet" in inspect.getsource(_http1.Http1Connection.read_body)
    assert "EndOfMessage(headers=" in inspect.getsource(ChunkedReader.__call__)


def test_the_head_of_an_answer_is_read_by_a_method_that_can_be_replaced() -> None:
    assert "self.state = self.read_headers" in inspect.getsource(_http1.Http1Connection)
    source = inspect.getsource(_http1.Http1Client)
    assert "response_head = self.buf.maybe_extract_lines()" in source
    assert "status_code" not in source, "it tells interim responses apart by itself now"


def test_this_mitmproxy_is_one_that_all_that_was_proven_with() -> None:
    wire.check_version(version.VERSION)


@pytest.mark.parametrize("unknown", ["12.1.9", "12.3.0", "12.20.1", "13.0.0", "12.3.0.dev", "2.2"])
def test_another_minor_version_is_refused(unknown: str) -> None:
    with pytest.raises(ValueError, match=rf"this is mitmproxy {unknown}, and immich-triton needs 12\.2.*pip install"):
        wire.check_version(unknown)


@pytest.mark.parametrize("program", ["mitmdump", "mitmweb"])
def test_with_another_minor_version_the_start_ends(tmp_path: Path, program: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport mitmproxy.version\nmitmproxy.version.VERSION = '12.3.0'\n"
        f"sys.path.insert(0, {str(ADDON.parent)!r})\nfrom immich_ml import addons\n"
    )
    code, printed = refused_start(tmp_path, script=script, program=program)
    assert code == 1
    assert "immich-triton: this is mitmproxy 12.3.0, and immich-triton needs 12.2" in printed
    assert "Traceback" not in printed
