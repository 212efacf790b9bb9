"""A container of an image that build.sh made: its commands, its processes, and an end that leaves nothing.

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
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from immich_triton.server import processes

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
    def volumes(self) -> list[str]:
        """The folders that are volumes."""
        return [*(self._config.get("Volumes") or {})]

    @property
    def command(self) -> list[str]:
        """The default arguments."""
        return list(self._config["Cmd"])

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
    """A container while the block lasts: the files of an image, which runs change and the next run finds changed."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._name = ""

    def __enter__(self) -> Container:
        """Make it."""
        self._name = buildah("from", "--pull=never", self._image.tag)
        # Else buildah mounts volumes of its own there, over those that it is given.
        buildah("config", *(f"--volume={volume}-" for volume in self._image.volumes), self._name)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        buildah("rm", self._name)

    def written(self, since: float, but: Sequence[str]) -> list[str]:
        """Return the files, by their path inside, that were written after *since* outside the folders *but*."""
        root = Path(buildah("mount", self._name))
        try:
            spared = {root / folder.lstrip("/") for folder in but}
            return [f"/{path.relative_to(root)}" for path in _newer(root, since, spared)]
        finally:
            buildah("unmount", self._name)

    def inside(self, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """Return the command line that runs *command* in it, with more *options* of ``buildah run``."""
        return _command("run", "--isolation=chroot", "--network=host", *options, self._name, "--", *command)


def _newer(folder: Path, since: float, spared: AbstractSet[Path]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path in spared:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _newer(path, since, spared)
        elif path.lstat().st_mtime > since:
            yield path


class Running:
    """The main command of a container, and all that it starts, while the block lasts. What it prints goes to *log*."""

    def __init__(self, container: Container, command: Sequence[str], options: Sequence[str], log: Path) -> None:
        self._mark = f"{MARK}={secrets.token_hex(8)}"
        self._line = container.inside(command, [*options, f"--env={self._mark}"])
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Running:
        """Start it."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def pids(self) -> list[int]:
        """Return its processes, the first one first."""
        mine = []
        for pid in processes.pids():
            with contextlib.suppress(OSError):
                if self._mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    mine.append(pid)
        # By age: processes that decode images have no parent here either, and may have got lower numbers.
        return sorted(mine, key=lambda pid: (processes.parent(pid) in mine, processes.started(pid)))

    def main(self) -> int:
        """Return the first process: what a signal of ``docker stop`` goes to. Raises ProcessLookupError."""
        if not (pids := self.pids()):
            raise ProcessLookupError("no process of the container runs")
        return pids[0]

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end beside it, as ``docker exec`` and health checks do; its outputs come back as one.

        In its name space: a second ``buildah run`` would take the volumes away from it.
        """
        try:
            pid = self.main()
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            owner = Path(f"/proc/{pid}").stat()
        except (ProcessLookupError, FileNotFoundError) as error:
            return subprocess.CompletedProcess(command, 1, str(error))
        environment = dict(
            os.fsdecode(one).split("=", 1) for one in variables if one and self._mark.encode() not in one
        )
        line = ["nsenter", f"--target={pid}", "--mount", "--root", "--wd", f"--setuid={owner.st_uid}"]
        line += [f"--setgid={owner.st_gid}", "--", "env", *command]
        return subprocess.run(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
        )

    def ended(self) -> int | None:
        """Return the exit code, None while it runs."""
        return None if self._process is None else self._process.poll()
