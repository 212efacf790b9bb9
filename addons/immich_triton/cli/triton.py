#!/usr/bin/env python3
"""Run the embedded Triton over a model repository until Ctrl-C or SIGTERM; for this machine only, if not told else.

It is the real server of the nvidia-pytriton wheel. A model that cannot be loaded is reported and the others are served;
a server that dies is started again. `immich-triton run` does this together with the gateway.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TextIO

from immich_triton.cli import run_gpu
from immich_triton.core.paths import MODELS, RUN
from immich_triton.core.secrets import secret
from immich_triton.server.preflight import StartError
from immich_triton.server.renewal import renew
from immich_triton.server.stop_signals import StopSignals
from immich_triton.server.triton_install import ONNXRUNTIME_BACKEND
from immich_triton.server.triton_process import TritonProcess
from immich_triton.server.triton_settings import TritonSettings


def main(arguments: list[str] | None = None) -> int:
    """Run the program. Returns 0 after a stop that was asked for, 1 when Triton could not be started."""
    options = _parse(arguments)
    try:
        key = secret("--key", options.key)
    except ValueError as error:
        _say(f"error: {error}", file=sys.stderr)
        return 1
    run_dir = options.run_dir or RUN / f"triton-{options.http_port}"
    settings = TritonSettings(
        models=options.models.resolve(),
        http_port=options.http_port,
        metrics_port=options.metrics_port,
        run_dir=run_dir.resolve(),
        shared_memory_mib=options.shm_mib,
        only_routed=options.only_routed,
        gpu=options.gpu,
        host=options.host,
        key=key,
        onnxruntime_backend=options.onnxruntime_backend.resolve(),
    )
    triton = TritonProcess(settings, _say)
    with StopSignals() as asked:
        try:
            for sentence in run_gpu.before_start(settings.models, gpu=options.gpu):
                _say(sentence)
            for sentence in renew(settings.models):
                _say(sentence)
            triton.start()
            _say(f"starting over {settings.models} (log: {triton.log_path})")
            while not asked.wait(0.1):
                triton.poll()
        except StartError as error:
            _say(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            triton.stop()
    _say("stopped")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)"
    )
    parser.add_argument(
        "--http-port", type=int, default=8000, metavar="N", help="port of Triton's HTTP endpoint (default: %(default)s)"
    )
    parser.add_argument(
        "--metrics-port", type=int, default=8002, metavar="N", help="port of Prometheus metrics (default: %(default)s)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 serves gateways on other machines, and needs --key (default: %(default)s)",
    )
    parser.add_argument(
        "--key",
        default="",
        metavar="WHERE",
        help="where the key stands that inference and model control then ask for: file:PATH or env:NAME; give the "
        "gateway the same as immich_triton_key. Users of this machine can see it in the list of processes",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="folder for triton.log, triton.pid and the backend directory; one server each "
        "(default: .run/triton-<http port>)",
    )
    parser.add_argument(
        "--only-routed",
        action="store_true",
        help="leave out our pipelines (ocr, clip_image, clip_text, faces) that no route names, as `run` does",
    )
    parser.add_argument(
        "--shm-mib",
        type=int,
        default=256,
        metavar="N",
        help="refuse to start with less than this many MiB free in /dev/shm (default: %(default)s, enough for OCR)",
    )
    parser.add_argument(
        "--onnxruntime-backend",
        type=Path,
        default=ONNXRUNTIME_BACKEND,
        metavar="DIR",
        help="another implementation of the onnxruntime backend, such as a folder with a libtriton_onnxruntime.so that "
        "was built for this Triton (default: triton_backends/onnxruntime)",
    )
    run_gpu.add_option(parser)
    return parser.parse_args(arguments)


def _say(text: str, file: TextIO | None = None) -> None:
    print(f"triton: {text}", file=file or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
