"""A real Prometheus for a test, and what its dashboard would ask of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from places import PROJECT

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.server import die_with_parent

MONITORING = PROJECT / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
VARIABLES = {"$__rate_interval": "5s", "$__range": "60s", "$gateway": ".*", "$triton": ".*", "$site": ".*"}
"""What Grafana puts in their place."""


def program(name: str) -> str:
    """Return the path of one of Prometheus's programs, or skip the test and say what installs it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; Debian and Ubuntu: apt-get install prometheus")
    return found


def promtool(*arguments: object, stdin: str | None = None) -> str:
    """Run promtool and return what it prints. Fails when it finds a fault."""
    ended = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def panels() -> Iterator[Mapping[str, Any]]:
    """Yield every panel that asks for something."""
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def questions() -> Iterator[tuple[str, str]]:
    """Yield the title and the PromQL of every query of every panel, ready to be asked."""
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for variable, value in VARIABLES.items():
                query = query.replace(variable, value)
            yield panel["title"], query


def metrics_in(query: str) -> set[str]:
    """Return the names of the metrics that a query is about."""
    without_labels = re.sub(r"\{[^}]*\}|\b(?:by|on)\s*\([^)]*\)", "", query)
    return set(re.findall(r"\b(?:immich|nv|process)_\w+", without_labels))


@dataclass
class Prometheus:
    """A running server; ``url`` has no trailing slash."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the HTTP API."""
        response = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)
        body = response.json()
        assert body["status"] == "success", body
        return body["data"]

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of every series of an instant query."""
        result = self.get("query", query=promql)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]


@contextmanager
def running_prometheus(directory: Path, gateway: str, triton: str, site: str) -> Iterator[Prometheus]:
    """Run Prometheus with the project's configuration, over these addresses and every second."""
    server = program("prometheus")
    config = (MONITORING / "prometheus.yml").read_text(encoding="utf-8").replace("15s", "1s")
    for default, url in (("127.0.0.1:9464", gateway), ("127.0.0.1:8002", triton), ("127.0.0.1:9465", site)):
        assert default in config
        config = config.replace(default, url.removeprefix("http://"))
    (directory / "prometheus.yml").write_text(config)
    shutil.copy(MONITORING / "prometheus-rules.yml", directory)
    (port,) = free_ports(1)
    command = [server, f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(die_with_parent.wrap(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    prometheus = Prometheus(f"http://127.0.0.1:{port}")

    def ready() -> bool:
        try:
            return requests.get(f"{prometheus.url}/-/ready", timeout=2).ok
        except requests.ConnectionError:
            return False

    try:
        assert eventually(ready, 30), (directory / "prometheus.log").read_text()
        yield prometheus
    finally:
        process.terminate()
        process.wait(20)
