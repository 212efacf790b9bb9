"""Who asks a server of this machine does not ask a proxy that the environment names for the rest of the world."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.cli import health
from immich_triton.core import bounded_http, direct_requests
from immich_triton.core.loopback import is_loopback
from immich_triton.immich.ml_client import predict
from immich_triton.server.triton_control import ModelControl
from immich_triton.server.triton_process import TritonProcess
from immich_triton.server.triton_settings import TritonSettings


class Well(BaseHTTPRequestHandler):
    """Answers everything with 200."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server on this machine, where the environment names a proxy that does not answer."""
    for name in ("no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    with ThreadingHTTPServer(("127.0.0.1", 0), Well) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("host", "out_of_reach"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("gateway", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_what_other_machines_cannot_reach(host: str, out_of_reach: bool) -> None:
    assert is_loopback(host) is out_of_reach


def test_the_health_check_asks_the_gateway_itself(port: int) -> None:
    assert health.ask(f"127.0.0.1:{port}", 10) == "{}"


def test_models_are_loaded_in_our_triton(port: int) -> None:
    control = ModelControl(f"http://127.0.0.1:{port}", "")
    control.ask("echo", "load")
    errors: list[str] = []

    def done() -> bool:
        errors.extend(outcome.error for outcome in control.outcomes())
        return bool(errors)

    assert eventually(done)
    control.close()
    assert errors == [""]


def test_our_triton_is_found_alive(port: int, tmp_path: Path) -> None:
    triton = TritonProcess(TritonSettings(tmp_path, port, free_ports(1)[0], tmp_path / "run"), print)
    assert triton._answers()


@pytest.mark.parametrize(
    "ask",
    [
        lambda url: direct_requests.get(url, timeout=10).ok,
        lambda url: direct_requests.post(url, timeout=10).ok,
        lambda url: bounded_http.ask("GET", url).ok,
        lambda url: predict(url, {}).status == 200,
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_tools_ask_a_server_of_this_machine_itself(port: int, host: str, ask: Callable[[str], bool]) -> None:
    assert ask(f"http://{host}:{port}")


@pytest.mark.usefixtures("port")
def test_a_server_elsewhere_is_asked_through_the_proxy() -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        direct_requests.get("http://192.0.2.1/", timeout=10)
    with pytest.raises(requests.exceptions.InvalidURL):
        direct_requests.get("http://[::1/", timeout=10)
