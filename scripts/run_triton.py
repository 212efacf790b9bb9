#!/usr/bin/env python3
"""Run the embedded Triton over a model repository, on this machine only, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from toolbox import die_with_parent, triton_install
from toolbox.repository import MODELS, PROJECT


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--run-dir", type=Path)
    options = parser.parse_args()
    run_dir = (options.run_dir or PROJECT / ".run" / f"triton-{options.http_port}").resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    backends = triton_install.prepare(run_dir)
    command = triton_install.command(
        options.models.resolve(),
        backends,
        options.http_port,
        options.metrics_port,
        f"immich_{options.http_port}_",
    )
    with (run_dir / "triton.log").open("wb") as log:
        process = subprocess.Popen(
            die_with_parent.wrap(command),
            env=triton_install.environment(run_dir),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (run_dir / "triton.pid").write_text(f"{process.pid}\n")
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, lambda *_: process.terminate())
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
