"""The site for a test: ``mitmdump -s addons/immich_web.py`` in a process of its own, in front of a double."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded_triton import eventually, free_ports
from gateway_process import PROJECT, GatewayProcess, command
from toolbox import die_with_parent

ADDON = PROJECT / "addons" / "immich_web.py"


@contextmanager
def running_web(directory: Path, upstream: str, *, script: Path = ADDON, **options: object) -> Iterator[GatewayProcess]:
    """Start mitmdump, wait until it listens, stop it at the end. *directory* takes its log."""
    (port,) = free_ports(1)
    directory.mkdir(exist_ok=True)
    log_file = directory / "web.log"
    options |= {"confdir": directory / "confdir"}
    line = command(port=port, mode=f"reverse:{upstream}", script=script, program="mitmdump", **options)
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            die_with_parent.wrap(line),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
        )
    web = GatewayProcess(f"http://127.0.0.1:{port}", script, directory, log_file, process, "")
    try:
        ready = "simplified and traditional" if "immich_web" in script.name else "listening at"
        assert eventually(lambda: process.poll() is not None or ("listening at" in web.log and ready in web.log)), (
            web.log
        )
        assert process.poll() is None, web.log
        yield web
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
