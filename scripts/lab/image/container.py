"""One container of an image that build.sh made: its own commands, its processes, and an end that leaves nothing.

buildah runs commands in a chroot: on this machine's network and among its processes, and without the image's entry
point and health check, which are read out of the image and given as commands here.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from toolbox import processes

HERE: Final = Path(__file__).parent
MARK: Final = "IMAGE_PROOF"
"""A variable in the environment of every process of a container, by which they are found."""


def buildah(*arguments: str) -> str:
    """Run buildah over the storage of build.sh and return what it prints. Raises `subprocess.CalledProcessError`."""
    return subprocess.run(_command(*arguments), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _command(*arguments: str) -> list[str]:
    script = f'source "{HERE / "storage.sh"}" && storage_buildah "$@"'
    return ["bash", "-c", script, "buildah", *arguments]


class Image:
    """What the Dockerfile says of an image beside its files."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self._config: Mapping[str, Any] = json.loads(buildah("inspect", "--type=image", tag))["Docker"]["config"]

    @property
    def entry(self) -> list[str]:
        """The entry point, without the default arguments (CMD)."""
        return list(self._config["Entrypoint"])

    @property
    def health(self) -> list[str]:
        """The command of the health check."""
        kind, *command = self._config["Healthcheck"]["Test"]
        return command if kind == "CMD" else ["sh", "-c", *command]

    @property
    def user(self) -> str:
        """The user that everything runs as."""
        return str(self._config["User"])

    @property
    def size(self) -> str:
        """The size for people, unpacked."""
        return buildah("images", "--format={{.Size}}", self.tag)


class Container:
    """A container whose command runs while the block lasts, with more *options* of ``buildah run``.

    What the command prints goes to the file *log*.
    """

    def __init__(self, image: Image, command: Sequence[str], options: Sequence[str], log: Path) -> None:
        self._image = image
        self._command = command
        self._options = options
        self._log = log
        self._mark = f"{MARK}={secrets.token_hex(8)}"
        self._name = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Container:
        """Start the command."""
        self._name = buildah("from", "--pull=never", self._image.tag)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._inside(self._command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs, and remove the container."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._name:
            buildah("rm", self._name)

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run another command beside it, as ``docker exec`` and health checks do; its outputs come back as one."""
        inside = self._inside(command)
        return subprocess.run(inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    def pids(self) -> list[int]:
        """Return its processes, the first one first."""
        mine = []
        for pid in processes.pids():
            with contextlib.suppress(OSError):
                if self._mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    mine.append(pid)
        return sorted(mine, key=lambda pid: processes.parent(pid) in mine)

    def main(self) -> int:
        """Return the first process: what a signal of ``docker stop`` goes to. Raises ProcessLookupError."""
        if not (pids := self.pids()):
            raise ProcessLookupError("no process of the container runs")
        return pids[0]

    def ended(self) -> int | None:
        """Return the exit code of its command, None while that runs."""
        return None if self._process is None else self._process.poll()

    def printed(self) -> str:
        """Return what its command printed so far."""
        return self._log.read_text(errors="replace")

    def _inside(self, command: Sequence[str]) -> list[str]:
        options = ["--isolation=chroot", "--network=host", f"--env={self._mark}", *self._options]
        return _command("run", *options, self._name, "--", *command)
