"""The site for a test: ``mitmdump -s addons/immich_web.py`` in a process of its own, in front of a double."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway_process import GatewayProcess, command, running_mitmdump
from places import PROJECT

from harness.ports import free_ports
from harness.program import eventually

ADDON = PROJECT / "addons" / "immich_web.py"


@contextmanager
def running_web(directory: Path, upstream: str, *, script: Path = ADDON, **options: object) -> Iterator[GatewayProcess]:
    """Start mitmdump, wait until it listens, stop it at the end. *directory* takes its log."""
    port, metrics = free_ports(2)
    directory.mkdir(exist_ok=True)
    log_file = directory / "web.log"
    options = {"confdir": directory / "confdir"} | options
    if "immich_web" in script.name:
        options = {"web_metrics_listen": f"127.0.0.1:{metrics}", "web_drain_timeout": 5} | options
    line = command(port=port, mode=f"reverse:{upstream}", script=script, program="mitmdump", **options)
    with running_mitmdump(line, log_file) as process:
        web = GatewayProcess(
            f"http://127.0.0.1:{port}", script, directory, log_file, process, f"http://127.0.0.1:{metrics}"
        )
        ready = "simplified and traditional" if "immich_web" in script.name else "listening at"
        assert eventually(lambda: process.poll() is not None or ("listening at" in web.log and ready in web.log)), (
            web.log
        )
        assert process.poll() is None, web.log
        yield web
