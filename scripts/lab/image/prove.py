#!/usr/bin/env python3
"""Prove that an image of build.sh works. Ends with 1, and what was printed inside, when it does not.

Twice over the same volumes, the models volume empty at first: the entry command answers OCR as the image's own user,
the health command says ready, and a SIGTERM (``docker stop``) lets requests in flight finish and ends with 0. The
second time under an init, as docker-compose.yml asks for: it passes the signal on, and reaps what a killed Triton
leaves; and with MT-Photos' API beside the gateway, which the health command asks too, and which reads the same text.
With --gateway an image of the gateway alone is proven too, over a Triton of this machine with the models made
meanwhile: ready, OCR, and the same end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import requests

HERE: Final = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # scripts/lab, where this folder is the package `image`

from harness.program import Program  # noqa: E402
from image.container import Container, Image  # noqa: E402
from image.trial import AT_ONCE, INIT, USER_ID, Failed, GatewayTrial, MtPhotosTrial, Trial, free_ports  # noqa: E402

TINI: Final = "tini-static"


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag", help="the image, as given to build.sh")
    parser.add_argument("--gateway", metavar="TAG", help="an image of the gateway alone, proven over the same models")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)  # an exception, on whose way out everything is stopped and removed
    image = Image(options.tag)
    say(f"{image.tag} has {image.size} and runs as {image.user}")
    with working_folder() as folder:
        mounts = [*volumes(folder), *pip_mounts(folder), f"--volume={shutil.which(TINI)}:{INIT}:ro"]
        log = folder / "container.log"
        try:
            # One container, as when it is stopped and started: what the first run left behind is there for the second.
            with Container(image) as container:
                first = Trial(image, container, mounts, log, init=False)
                prove(first, "first start, which makes the OCR models", dies=False)
                second = MtPhotosTrial(image, container, mounts, log, init=True)
                prove(second, "second start, with an init, MT-Photos answered too", dies=True)
            if options.gateway:
                prove_gateway(Image(options.gateway), folder, mounts, log)
        except (Failed, requests.RequestException, OSError) as failure:
            print(log.read_text(errors="replace")[-20_000:], file=sys.stderr)
            print(f"image: {failure}", file=sys.stderr)
            return 1
    say("proven")
    return 0


def prove_gateway(image: Image, folder: Path, mounts: list[str], log: Path) -> None:
    """Start the gateway alone over a Triton of this machine. Raises `Failed`."""
    if not [*(folder / "models").glob("*/route.toml")]:
        raise Failed("the models are not in the volume")
    say(f"{image.tag} has {image.size} and runs as {image.user}")
    port, metrics_port = free_ports(2)
    arguments = [f"--models={folder / 'models'}", f"--run-dir={folder / 'triton'}", "--only-routed"]
    triton = Program.start(
        "triton", [*arguments, f"--http-port={port}", f"--metrics-port={metrics_port}"], folder / "triton.log"
    )
    try:
        with Container(image) as container:
            over = GatewayTrial(image, container, mounts, log, init=True, triton_url=f"http://127.0.0.1:{port}")
            prove(over, "the gateway alone", dies=False)
    finally:
        triton.stop()


def prove(trial: Trial, name: str, *, dies: bool) -> None:
    """Make one start, and see everything that is asked of it. Raises `Failed`."""
    with trial.running:
        began = time.monotonic()
        trial.wait_until_healthy()
        say(f"{name}: ready after {time.monotonic() - began:.0f} s")
        trial.belongs_to_the_user()
        trial.reads()
        say("OCR reads the receipt")
        if dies:
            trial.survives_the_death_of_triton()
            say("Triton was killed: OCR goes on, and no zombie stays")
        say(f"SIGTERM with {AT_ONCE} requests in flight: all answered, exit code 0 after {trial.stops():.1f} s")
        trial.writes_only_where_it_may()
        say("nothing was written but into the volumes and /tmp")


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """Give a folder that the image's user may enter, and remove it with whatever was written there."""
    with tempfile.TemporaryDirectory(prefix="immich-triton-proof-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def volumes(folder: Path) -> list[str]:
    """Make the volumes, and give them to the image's user: a bind mount does not take its owner from the image."""
    options = []
    for name in ("models", "state"):
        (folder / name).mkdir()
        os.chown(folder / name, USER_ID, USER_ID)
        options.append(f"--volume={folder / name}:/{name}")
    return options


def pip_mounts(folder: Path) -> list[str]:
    """Return the options that let pip inside reach an index: the first start fetches the OCR models."""
    command = [sys.executable, str(HERE / "pip_mounts.py"), str(folder / "pip.conf")]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def say(text: str) -> None:
    """Print one line of the report."""
    print(f"image: {text}", flush=True)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
