"""Checks before a start, each with its remedy: better one sentence now than a page of log later."""

from __future__ import annotations

import ipaddress
import os
import platform
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXPORTS = {"ocr": "immich-triton export ocr", "clip": "immich-triton export clip", "face": "immich-triton export faces"}
"""Which script makes the models whose names contain the key."""

LEAST_GLIBC = (2, 35)  # the wheel is tagged manylinux_2_35_x86_64
ELSEWHERE = "run Triton in a container instead: docker compose up (see docs/deploy.md)"


class StartError(Exception):
    """Something cannot be started here; the text says what, why and what to do."""


def check_platform(system: str | None = None, machine: str | None = None, libc: str | None = None) -> None:
    """Raise `StartError` where the binary of the wheel cannot run. *libc* looks like ``glibc 2.36``."""
    system, machine = system or platform.system(), machine or platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise StartError(
            f"the embedded Triton exists for Linux on x86_64 only, this is {system} {machine}; {ELSEWHERE}"
        )
    libc = (os.confstr("CS_GNU_LIBC_VERSION") or "no glibc") if libc is None else libc
    version = re.fullmatch(r"glibc (\d+)\.(\d+).*", libc)
    if not version or (int(version[1]), int(version[2])) < LEAST_GLIBC:
        raise StartError(
            "the embedded Triton needs glibc 2.35 or newer (Debian 12, Ubuntu 22.04, RHEL 10), "
            f"this is {libc}; {ELSEWHERE}"
        )


def check_shared_memory(mebibytes: int, folder: Path = Path("/dev/shm")) -> None:  # noqa: S108 - fixed by POSIX shm
    """Raise `StartError` when *folder* has less than *mebibytes* free: tensors travel through it."""
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise StartError(f"{folder} is needed for Triton's shared memory: {error.strerror}") from error
    free = status.f_bavail * status.f_frsize >> 20
    if free < mebibytes:
        raise StartError(
            f"{folder} has {free} MiB free, Triton's Python backend needs {mebibytes} MiB (else requests fail with "
            "'Failed to increase the shared memory pool'). In a container: --shm-size=1g or, in a compose file, "
            f"shm_size: 1g; elsewhere: mount -o remount,size=1g {folder}"
        )


def check_executable(folder: Path) -> None:
    """Raise `StartError` where programs in *folder* may not run: Triton's Python backend is copied there."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise StartError(
            f"{folder} is mounted noexec, and no model could be loaded from there: choose another --run-dir, or mount "
            "it with exec. In a compose file: tmpfs: [/tmp:exec]; with docker run: --tmpfs /tmp:exec"
        )


@dataclass(frozen=True)
class Port:
    """A TCP port to listen on: what for, and how to choose another one."""

    number: int
    purpose: str
    remedy: str
    host: str = "127.0.0.1"


def check_ports(ports: Sequence[Port]) -> None:
    """Raise `StartError` when two of *ports* are the same number, or nothing can listen on one of them."""
    purposes: dict[int, str] = {}
    for port in ports:
        other = purposes.setdefault(port.number, port.purpose)
        if other is not port.purpose:
            raise StartError(f"{other} and {port.purpose} cannot share port {port.number}; {port.remedy}")
        _check_port(port)


def _check_port(port: Port) -> None:
    if not 0 < port.number < 1 << 16:
        raise StartError(f"{port.purpose} cannot have port {port.number}; {port.remedy} (1 to 65535)")
    try:
        found = socket.getaddrinfo(port.host, port.number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"cannot listen on {port.host}:{port.number} for {port.purpose}: {reason}. "
            f"`ss -ltnp sport = :{port.number}` shows who does; {port.remedy}"
        ) from error


def reachable(host: str) -> str:
    """Return the address at which this machine reaches a server that listens on *host* (``::`` takes IPv4 too)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1"


def check_models(models: Path) -> None:
    """Raise `StartError` when there is no repository, or no model in it."""
    make = f"make the OCR models with immich-triton export ocr --models {models}"
    if not models.is_dir():
        raise StartError(f"the model repository {models} does not exist; {make}")
    if not any(folder.is_dir() for folder in models.iterdir()):
        raise StartError(f"the model repository {models} is empty; {make}")


def missing_files(folder: Path) -> str | None:
    """Return what is missing in the *folder* of a model and what to do about it, in one line; None when nothing is."""
    config = folder / "config.pbtxt"
    if not config.exists():
        return "there is no config.pbtxt in its folder; remove the folder if it is no model"
    text = config.read_text(encoding="utf-8", errors="replace")
    # Triton would go on to report such a model as loading, for ever.
    if re.search(r'^\s*backend:\s*"python"', text, re.MULTILINE) and not any(folder.glob("[0-9]*/model.py")):
        return "model.py is missing in its version folder; remove the folder, or copy it whole"
    if not re.search(r'^\s*backend:\s*"onnxruntime"', text, re.MULTILINE):
        return None
    named = re.search(r'^\s*default_model_filename:\s*"([^"]+)"', text, re.MULTILINE)
    file = named[1] if named else "model.onnx"
    if any((version / file).exists() for version in folder.iterdir() if version.name.isdecimal()):
        return None
    scripts = [script for key, script in EXPORTS.items() if key in folder.name]
    makers = f"{scripts[0]} makes it" if scripts else f"it is made by one of {', '.join(EXPORTS.values())}"
    return f"{file} is missing; {makers} (--models {folder.parent})"
