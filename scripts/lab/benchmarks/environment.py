"""What the figures depend on: the machine, the versions, what else is running."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from pathlib import Path
from typing import Final

import requests

from benchmarks.service import Gateway
from immich_triton.core import direct_requests, versions

PACKAGES: Final = (
    "mitmproxy",
    "openvino",
    "nvidia-pytriton",
    "rapidocr-onnxruntime",
    "numpy",
    "aiohttp",
)
BUSY: Final = 0.5
"""Load average of others from which figures are called noisy."""


def describe(gateway: Gateway) -> dict[str, str]:
    """Return the machine, the versions, and the command line."""
    facts = {
        "command": shlex.join([".venv/bin/python", *sys.argv]),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} logical CPUs",
        "system": f"{platform.system()} {platform.release()}, {platform.freedesktop_os_release()['PRETTY_NAME']}",
        "python": platform.python_version(),
        "triton": _triton_version(gateway.triton),
        "load average before": f"{os.getloadavg()[0]:.2f}",
    }
    for package in PACKAGES:
        facts[package] = versions.of(package)
    return {**facts, "onnxruntime": versions.of_onnx_runtime()}


def warning() -> str | None:
    """Return a warning when the machine has other work to do."""
    load = os.getloadavg()[0]
    if load < BUSY:
        return None
    return f"the load average was {load:.1f} before we began: other work is running, figures are noisy"


def _cpu_model() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _triton_version(url: str) -> str:
    try:
        return str(direct_requests.get(f"{url}/v2", timeout=5).json()["version"])
    except (requests.RequestException, ValueError, KeyError) as error:
        return f"unknown ({error})"
