"""The gateway under mitmweb for a test, and mitmweb's own HTTP interface, which its pages use."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from gateway_process import GatewayProcess, running_gateway

from harness.ports import free_ports
from harness.program import eventually


@dataclass
class Mitmweb:
    """mitmweb's pages at ``url``; ``address`` lets a browser in without the login form."""

    url: str
    password: str
    gateway: GatewayProcess

    @property
    def address(self) -> str:
        """Return the address of the flow list, password included."""
        return f"{self.url}/?token={self.password}"

    def call(self, method: str, path: str, **keywords: Any) -> Any:
        """Return the JSON that mitmweb answers, None when it answers nothing."""
        token = secrets.token_hex(16)  # mitmweb wants to see the same one twice
        headers = {"Authorization": f"Bearer {self.password}", "X-XSRFToken": token}
        cookies = {"_mitmproxy_xsrf": token}
        url = f"{self.url}{path}"
        response = requests.request(method, url, headers=headers, cookies=cookies, timeout=10, **keywords)
        response.raise_for_status()
        return response.json() if response.content else None

    def flows(self) -> list[dict[str, Any]]:
        """Return what the flow list shows, oldest first."""
        flows: list[dict[str, Any]] = self.call("GET", "/flows")
        return flows

    def last(self) -> dict[str, Any]:
        """Return the youngest flow, when mitmproxy is done with it."""
        assert eventually(lambda: bool(self.flows()[-1]["comment"]))
        return self.flows()[-1]

    def shown(self, flow: dict[str, Any], message: str) -> tuple[str, str]:
        """Return name and text of the view of a flow's "request" or "response"."""
        content = self.call("GET", f"/flows/{flow['id']}/{message}/content/Auto.json")
        return content["view_name"], content["text"]

    def replay(self, flow: dict[str, Any]) -> dict[str, Any]:
        """Send a flow's request once more, in the same flow, and return that when mitmproxy is done with it."""
        self.command("replay.client", f"@{flow['id']}")
        assert eventually(lambda: self.command("replay.client.count") == 0)
        (again,) = [each for each in self.flows() if each["id"] == flow["id"]]
        return again

    def slowest_until(self, condition: Callable[[], bool]) -> float:
        """Ask mitmweb again and again until *condition* is true, and return the slowest answer's share of that time."""
        slowest, began = 0.0, time.monotonic()
        done = False
        while not done:
            asked = time.monotonic()
            done = condition()
            slowest = max(slowest, time.monotonic() - asked)
        return slowest / (time.monotonic() - began)

    def command(self, name: str, *arguments: str) -> Any:
        """Run a mitmproxy command and return its value. Fails with the command's error."""
        result = self.call("POST", f"/commands/{name}", json={"arguments": list(arguments)})
        assert "error" not in result, result["error"]
        return result["value"]


@contextmanager
def running_mitmweb(
    directory: Path, *, models: Path, triton_url: str, upstream: str, **options: Any
) -> Iterator[Mitmweb]:
    """Start the gateway under mitmweb and stop it at the end."""
    (port,) = free_ports(1)
    password = secrets.token_hex(8)
    web_options: dict[str, Any] = {"web_port": port, "web_open_browser": "false", "web_password": password}
    with running_gateway(
        directory,
        models=models,
        triton_url=triton_url,
        upstream=upstream,
        program="mitmweb",
        **web_options,
        **options,
    ) as gateway:
        yield Mitmweb(f"http://127.0.0.1:{port}", password, gateway)
