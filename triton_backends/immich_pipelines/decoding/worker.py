"""A process that decodes one image after the other, and may die over any of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
from io import FileIO
from typing import Any, Final

from immich_pipelines.decoding import messages, pillow
from immich_pipelines.decoding.findings import Scan
from immich_pipelines.decoding.messages import BAD_INPUT, FAULT, Job
from immich_pipelines.errors import BadInput
from immich_pipelines.trimming import QUIET_SECONDS, trim

BASE_SECONDS: Final = 2.0
WORK_PER_SECOND: Final = 20_000_000
"""Pixels times passes that a slow core decodes in a second (a fast one does five times as many)."""
BASE_BYTES: Final = 96 << 20
BYTES_PER_PIXEL: Final = 32
"""A WebP animation is the most: two canvases, a frame, its copy, the picture, the RGB picture, with four bytes each."""
FILE_COPIES: Final = 4

_PR_SET_PDEATHSIG: Final = 1
_DONE: Final = b"done"


def cpu_seconds(job: Job) -> float:
    """Return the CPU time that *job* may take: in proportion to its work, up to the job's own bound."""
    return min(job.seconds, BASE_SECONDS + job.scan.work / WORK_PER_SECOND)


def memory_bytes(scan: Scan, file_bytes: int) -> int:
    """Return the address space that an image of *file_bytes* may take beyond what the process has anyway."""
    return BASE_BYTES + BYTES_PER_PIXEL * scan.pixels + FILE_COPIES * file_bytes


def main(pool: socket.socket, parent: int) -> None:
    """Serve the *pool*, process *parent*, until it hangs up. A message is a job, two files and the client."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        return
    rested = True
    while True:
        if not rested and not select.select([pool], [], [], QUIET_SECONDS)[0]:
            trim()
            rested = True
        message, descriptors = messages.receive(pool)
        if message is None:
            return
        job = Job.of(message)
        image, pixels, client = descriptors
        # Without a buffer: once it is answered the client may lend the file to another process.
        with socket.socket(fileno=client) as connection, os.fdopen(pixels, "wb", buffering=0) as file:
            _answer(job, image, file, connection)
        pool.send(_DONE)
        rested = False
        if job.scan.heavy:  # what the allocator keeps of it goes back with the process; the pool starts another
            return


def _answer(job: Job, image: int, pixels: FileIO, client: socket.socket) -> None:
    try:
        with os.fdopen(image, "rb") as file:
            data = file.read()
        answer = _decode(job, data, pixels)
    except BadInput as error:
        answer = {"kind": BAD_INPUT, "error": str(error)}
    except MemoryError:
        allowed = memory_bytes(job.scan, len(data)) >> 20
        answer = {
            "kind": BAD_INPUT,
            "error": f"the image cannot be decoded: it takes more than the {allowed} MiB that its size allows",
        }
    except Exception as error:  # noqa: BLE001 - becomes the answer
        answer = {"kind": FAULT, "error": f"{type(error).__name__}: {error}"}
    with contextlib.suppress(OSError):  # the client is gone
        messages.send(client, answer)


def _decode(job: Job, data: bytes, pixels: FileIO) -> dict[str, Any]:
    _bound(job, len(data))
    try:
        picture = pillow.decode(data, job.scan, job.max_pixels)
        width, height = picture.size
        if job.side:
            picture = pillow.squeeze(picture, job.side)
        pixels.seek(0)  # behind it is what an image before has left
        # A short header, then R G B of each pixel, row by row, written without a copy in between.
        picture.save(pixels, "PPM")
        return {"width": width, "height": height, "offset": pixels.tell() - picture.width * picture.height * 3}
    finally:
        _unbound()


def _bound(job: Job, file_bytes: int) -> None:
    """Have the kernel end this process when the image takes too long, and refuse it memory beyond what it may take."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib costs more than the reading
        taken = int(file.read().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken + memory_bytes(job.scan, file_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds(job))


def _unbound() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
