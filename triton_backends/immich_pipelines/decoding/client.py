"""The pipelines' side of the pool: start it, find it, have an image decoded."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from immich_pipelines.cpus import available_cpus
from immich_pipelines.decoding import messages
from immich_pipelines.decoding.messages import BAD_INPUT, KILLED, Job
from immich_pipelines.decoding.scan import MAX_PIXELS, scan
from immich_pipelines.decoding.sheets import Shelf
from immich_pipelines.errors import BadInput

MAX_DECODERS: Final = 64
DEFAULT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 150.0
"""Longest wait for an answer, the wait for a free process included; the pool itself gives an image 60 s."""
START_SECONDS: Final = 60.0
ATTEMPTS: Final = 3
"""The pool, or the process that decoded, was killed from outside: another one will do it."""

RETRY_SECONDS: Final = 0.2
"""A process that was killed takes a moment to hang up everywhere."""


class PoolError(RuntimeError):
    """An image could not be decoded, and the server is to blame."""


@dataclass(frozen=True)
class Picture:
    """Pixels uint8 [height, width, 3], RGB, read-only, and the size of the image that they come from."""

    pixels: npt.NDArray[np.uint8]
    height: int
    width: int


class DecodingPool:
    """Decodes images in the processes that all pipelines of one Triton server share. May be used by many threads.

    *decoders*: how many processes there are, at least two; the pipelines' largest wish counts. *seconds*: CPU time that
    one image may take. *triton*: the server's process, with which the pool ends; the parent of this one, as a rule.
    """

    def __init__(self, decoders: int, seconds: float = DEFAULT_SECONDS, triton: int | None = None) -> None:
        self._decoders = decoders
        self._seconds = seconds
        self._triton = triton or os.getppid()
        self._address = _address(self._triton)
        self._shelf = Shelf()
        self._lock = threading.Lock()
        self._lifeline: socket.socket | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DecodingPool:
        """Return the pool that a model's *config* asks for, started. Raises ValueError when its values are wrong."""
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        decoders = _number(parameters, "decoders", 0, 0, MAX_DECODERS)
        seconds = _number(parameters, "decode_seconds", DEFAULT_SECONDS, 1, 600)
        pool = cls(int(decoders) or default_decoders(available_cpus()), seconds)
        pool.start()
        return pool

    def start(self) -> None:
        """Join the pool, and start it when there is none. Raises `PoolError`."""
        with self._lock:
            if self._lifeline is not None and _is_open(self._lifeline):
                return
            self._leave()
            deadline = time.monotonic() + START_SECONDS
            while self._lifeline is None:
                try:
                    self._lifeline = self._join()
                except OSError as error:  # it ended at this very moment, or could not start
                    if time.monotonic() > deadline:
                        raise PoolError(f"the processes that decode images do not start: {error}") from error
                    time.sleep(RETRY_SECONDS)

    def close(self) -> None:
        """Leave the pool; it ends when nobody is left."""
        with self._lock:
            self._leave()
        self.release()

    def release(self) -> None:
        """Give back the memory that is only kept for the next image; one may come meanwhile."""
        self._shelf.clear()

    def decode(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
        """Decode *data* into a uint8 array [height, width, 3], RGB, read-only.

        The pixels are those of `decode.decode_rgb`. Raises `BadInput` for what is the image's fault, its crash of the
        decoder included, and `PoolError` for what is not.
        """
        return self._picture(data, max_pixels, 0).pixels

    def squeeze(self, data: bytes, side: int, max_pixels: int = MAX_PIXELS) -> Picture:
        """Decode *data* and squeeze it to a square of *side* pixels, see `pillow.squeeze`; raises as `decode` does."""
        return self._picture(data, max_pixels, side)

    def _picture(self, data: bytes, max_pixels: int, side: int) -> Picture:
        job = Job(scan(data, max_pixels=max_pixels), max_pixels, self._seconds, side)
        failure = ""
        for _ in range(ATTEMPTS):
            self.start()
            sheet = self._shelf.take()
            try:
                answer = self._ask(job, data, sheet.descriptor)
            except TimeoutError:
                raise PoolError(f"no process decoded the image within {ANSWER_SECONDS:.0f} s") from None
            except OSError as error:
                failure = f"the pool ended: {error}"
                time.sleep(RETRY_SECONDS)
                continue
            if "error" not in answer:
                height, width = answer["height"], answer["width"]
                shape = (side or height, side or width, 3)
                return Picture(self._shelf.lend(sheet, answer["offset"], shape), height, width)
            # The file is not lent again: who failed may be dying only now, and not have stopped to write.
            if answer["kind"] == BAD_INPUT:
                raise BadInput(answer["error"])
            failure = answer["error"]
            if answer["kind"] != KILLED:
                break
        raise PoolError(failure)

    def _ask(self, job: Job, data: bytes, pixels: int) -> dict[str, Any]:
        image = messages.anonymous_file("image")
        with os.fdopen(image, "wb", buffering=0) as file, self._connect() as connection:
            file.write(data)
            file.seek(0)
            messages.send(connection, job.message(), [image, pixels])
            connection.settimeout(ANSWER_SECONDS)
            return _receive(connection)

    def _join(self) -> socket.socket:
        try:
            lifeline = self._connect()
        except ConnectionRefusedError:
            self._found()
            lifeline = self._connect()
        try:
            lifeline.settimeout(START_SECONDS)
            messages.send(lifeline, {"decoders": self._decoders})
            _receive(lifeline)
            lifeline.setblocking(False)  # from now on it is only asked whether it is open
        except BaseException:
            lifeline.close()
            raise
        return lifeline

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(self._address)
            messages.check_peer(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _found(self) -> None:
        """Start the pool, unless another pipeline does it at this moment: the address can be taken once."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            try:
                door.bind(self._address)
            except OSError:
                time.sleep(0.05)  # until the other one listens
                return
            door.listen(128)
            command = [_python(), "-S", "-s", "-B", "-m", "immich_pipelines.decoding.server"]
            _launch([*command, str(door.fileno()), str(self._triton)], door.fileno())

    def _leave(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None


def default_decoders(cpus: int) -> int:
    """Return how many processes decode unless told otherwise: one for each of *cpus*, 2 to 16."""
    return min(max(cpus, 2), 16)


def _launch(command: list[str], listener: int) -> None:
    """Start the pool and wait until it has detached itself. Raises `PoolError` when it cannot start."""
    # The packages of this interpreter, however it came by them: Triton's stub honours no PYTHONPATH, the pool does.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # What lets a network keep its buffers would have these keep an image each: nobody gives their memory back.
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        environment.pop(name, None)
    try:
        ended = subprocess.run(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[listener],
            env=environment,
            cwd="/",
            timeout=START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PoolError(
            f"the processes that decode images were not ready within {START_SECONDS:.0f} s. The machine is overloaded, "
            f"or the disk with Python's packages does not answer"
        ) from None
    if ended.returncode:  # another attempt would end the same way
        raise PoolError(
            f"the processes that decode images do not start: exit code {ended.returncode}. Triton's log says why; "
            f"mend Pillow's installation when it names PIL, then load the model again"
        )


def _python() -> str:
    """Return the interpreter; in Triton's stub it is the ``python3`` that the stub took its packages from."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    found = shutil.which("python3")
    if found is None:
        raise PoolError("there is no python3 on the PATH of Triton, and images are decoded by processes of their own")
    return found


def _address(triton: int) -> str:
    """Return an abstract Unix address: no file, gone with the pool, no other server's in whatever container."""
    with contextlib.suppress(OSError):
        started = Path(f"/proc/{triton}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
        return f"\0immich-triton-decoding-{Path('/proc/self/ns/pid').stat().st_ino}-{triton}-{started}"
    return f"\0immich-triton-decoding-{triton}"


def _receive(connection: socket.socket) -> dict[str, Any]:
    answer, _ = messages.receive(connection)
    if answer is None:
        raise ConnectionResetError("it hung up; see Triton's log")
    return answer


def _is_open(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _number(parameters: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = parameters.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ValueError(f"parameter {name} must be a number from {least:g} to {most:g}, got {text!r}")
    return value
