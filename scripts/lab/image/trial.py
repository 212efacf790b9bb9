"""One start of the image, and what is asked of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from image.container import Container, Image, Running
from immich_triton.core import direct_requests
from immich_triton.core.paths import PROJECT
from immich_triton.immich.ml_client import Answer, entries_for, predict
from immich_triton.mt_photos.settings import WELL_KNOWN_KEY
from immich_triton.server import processes

USER_ID: Final = 1000
RECEIPT: Final = (PROJECT / "tests/data/images/zh_receipt.jpg").read_bytes()
LINES: Final = json.loads((PROJECT / "tests/data/stock/zh_receipt.jpg.ocr.json").read_text())["ocr"]["text"]
"""What the stock ML reads in it."""
INIT: Final = "/sbin/docker-init"
"""Where Docker puts its init, which is tini."""
AT_ONCE: Final = 8
"""Requests under way when the stop comes; at least half of them are in flight then, however fast the machine is."""
WRITABLE: Final = ("/tmp", "/models", "/state")  # noqa: S108 - inside
"""Where something may be written."""
BUILDAHS: Final = (
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/etc/hosts",
    "/etc/resolv.conf",
    f"/usr{INIT}",
    "/etc/pip.conf",
    "/mnt",
)
"""Where buildah itself puts what it mounts."""
START_SECONDS: Final = 600.0
"""For the first start, which downloads and makes the models; generous, since other work may run on the machine."""
STOP_SECONDS: Final = 270.0
"""What docker-compose.yml gives as stop_grace_period."""


class Failed(Exception):  # noqa: N818 - what was to be proven is not so
    """The image does not do what it should; the text says what."""


class Trial:
    """One start of the image."""

    def __init__(self, image: Image, container: Container, options: Sequence[str], log: Path, *, init: bool) -> None:
        self._port, self._metrics_port = free_ports(2)
        self._image = image
        self._container = container
        self._began = time.time()
        command = [*([INIT, "-s", "--"] if init else []), *image.entry, *self.arguments()]
        self.running = Running(container, command, options, log)

    def arguments(self) -> list[str]:
        """Return what follows the entry point."""
        triton_port, triton_metrics_port, nobody = free_ports(3)
        return [
            f"--upstream=http://127.0.0.1:{nobody}",  # what is ours needs no stock ML
            f"--port={self._port}",
            f"--metrics-port={self._metrics_port}",
            f"--triton-http-port={triton_port}",
            f"--triton-metrics-port={triton_metrics_port}",
        ]

    def health(self) -> list[str]:
        """Return the command of the health check."""
        return self._image.health

    def wait_until_healthy(self) -> None:
        """Wait until the health command says so."""
        began = time.monotonic()
        while (health := self.running.execute(self.health())).returncode:
            self._runs()
            if time.monotonic() - began > START_SECONDS:
                raise Failed(f"not healthy after {START_SECONDS:g} s: {health.stdout}")
            time.sleep(1)

    def reads(self) -> None:
        """Ask for the text of a photo."""
        answer = self._ask()
        found = answer.body["ocr"]["text"] if answer.status == 200 else answer.body
        if not isinstance(found, list) or {*map(plain, found)} != {*map(plain, LINES)}:
            raise Failed(f"OCR answered {answer.status}: {found}\nexpected: {LINES}")

    def belongs_to_the_user(self) -> None:
        """See that no process has more rights than the image's user."""
        for pid in self.running.pids():
            with contextlib.suppress(FileNotFoundError):
                (owners,) = re.findall(r"^Uid:\t(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
                if {*owners.split()} != {str(USER_ID)}:
                    raise Failed(f"process {pid} runs as {owners}, not as {self._image.user} ({USER_ID})")

    def writes_only_where_it_may(self) -> None:
        """See that nothing was written but into volumes and /tmp: its file system may be read-only."""
        if files := self._container.written(self._began, [*WRITABLE, *BUILDAHS]):
            raise Failed(f"written outside of {', '.join(WRITABLE)}: {files[:10]}")

    def survives_the_death_of_triton(self) -> None:
        """Kill Triton; it is started again, and its orphans are reaped."""
        main = self.running.main()
        for pid in self.running.pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0].endswith("/tritonserver"):
                    os.kill(pid, signal.SIGKILL)
        self.reads()
        self._until(lambda: not zombies(main), 30, "what a killed Triton left behind is never reaped")

    def stops(self) -> float:
        """Send SIGTERM while requests are in flight; return the seconds until the end."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = [pool.submit(self._ask) for _ in range(AT_ONCE)]
            self._until(lambda: self._in_flight() >= AT_ONCE / 2, 60, "the requests do not arrive")
            began = time.monotonic()
            os.kill(self.running.main(), signal.SIGTERM)
            self._until(lambda: self.running.ended() is not None, STOP_SECONDS, "SIGTERM does not end it in time")
            statuses = [answer.result().status for answer in answers]
        if statuses != [200] * AT_ONCE or self.running.ended() != 0:
            raise Failed(f"stopped with exit code {self.running.ended()}, requests in flight got {statuses}")
        if left := self.running.pids():
            raise Failed(f"processes are left behind after the stop: {left}")
        return time.monotonic() - began

    def _ask(self) -> Answer:
        return predict(f"http://127.0.0.1:{self._port}", entries_for("ocr"), image=RECEIPT)

    def _in_flight(self) -> float:
        text = direct_requests.get(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=10).text
        (value,) = re.findall(r"^immich_gateway_requests_in_flight (.*)$", text, re.MULTILINE)
        return float(value)

    def _runs(self) -> None:
        if (code := self.running.ended()) is not None:
            raise Failed(f"the entry command ended with exit code {code}")

    def _until(self, condition: Callable[[], bool], seconds: float, complaint: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(complaint)
            time.sleep(0.05)


class MtPhotosTrial(Trial):
    """One start that answers MT-Photos too; the image's own health check then asks for both."""

    def __init__(self, image: Image, container: Container, options: Sequence[str], log: Path, *, init: bool) -> None:
        self._mt_photos_port, self._mt_photos_metrics_port = free_ports(2)
        super().__init__(image, container, options, log, init=init)

    def arguments(self) -> list[str]:
        """Return what follows the entry point."""
        ports = [
            f"--mt-photos-port={self._mt_photos_port}",
            f"--mt-photos-metrics-port={self._mt_photos_metrics_port}",
        ]
        return [*super().arguments(), "--mt-photos", *ports]

    def reads(self) -> None:
        """Ask for the text of a photo as Immich does, and as MT-Photos does."""
        super().reads()
        answer = direct_requests.post(
            f"http://127.0.0.1:{self._mt_photos_port}/ocr",
            files={"file": ("receipt.jpg", RECEIPT)},
            headers={"api-key": WELL_KNOWN_KEY},
            timeout=300,
        )
        if answer.status_code != 200 or {*map(plain, answer.json()["result"]["texts"])} != {*map(plain, LINES)}:
            raise Failed(f"MT-Photos got {answer.status_code}: {answer.text[:2000]}")


class GatewayTrial(Trial):
    """One start of the gateway alone, over the Triton at *triton_url*."""

    def __init__(
        self, image: Image, container: Container, options: Sequence[str], log: Path, *, init: bool, triton_url: str
    ) -> None:
        self._triton_url = triton_url
        super().__init__(image, container, options, log, init=init)

    def arguments(self) -> list[str]:
        """Return those of the image's own command, with the ports and addresses of here."""
        here = {
            ":3003": f":{free_ports(1)[0]}",
            "immich-machine-learning": "127.0.0.1",
            "0.0.0.0:9464": f"127.0.0.1:{self._metrics_port}",
            "http://triton:8000": self._triton_url,
        }
        command = ["127.0.0.1" if word == "0.0.0.0" else word for word in self._image.command]  # noqa: S104 - of theirs
        command[command.index("--listen-port") + 1] = str(self._port)
        for theirs, ours in here.items():
            command = [word.replace(theirs, ours) for word in command]
        return command

    def health(self) -> list[str]:
        """Return the image's own, at the port of here."""
        return [word.replace(":9464", f":{self._metrics_port}") for word in self._image.health]


def free_ports(count: int) -> list[int]:
    """Return *count* different TCP ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


def zombies(parent: int) -> list[int]:
    """Return the children of *parent* that have ended and were not waited for."""
    found = []
    for pid in processes.pids():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            if processes.parent(pid) == parent and re.search(r"^State:\tZ", status, re.MULTILINE):
                found.append(pid)
    return found


def plain(line: str) -> str:
    """Return a line as it is compared: without what looks alike (widths of signs and spaces)."""
    return unicodedata.normalize("NFKC", line).replace(" ", "")
