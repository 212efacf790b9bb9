"""The package as a user gets it: a wheel in a bare Python 3.12, an empty folder, no clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import DATA, PROJECT

from harness.ports import free_ports
from harness.program import Program


@pytest.mark.timeout(900)
def test_from_the_wheel_alone_setup_run_predict_and_doctor_work(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([*build, str(tmp_path), str(PROJECT)], check=True)
    (wheel,) = tmp_path.glob("immich_triton-*.whl")
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", bare], check=True)
    subprocess.run([bare / "bin/pip", "install", "--quiet", wheel], check=True)
    homes = {f"XDG_{name}_HOME": str(tmp_path / name.lower()) for name in ("DATA", "STATE", "CACHE")}
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables = kept | homes
    program = bare / "bin/immich-triton"

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = [str(program), *map(str, arguments)]
        return subprocess.run(line, cwd=empty, env=variables, capture_output=True, text=True, check=False)

    assert run("--version").returncode == 0
    without = run("run")
    assert (without.returncode, "run: immich-triton setup" in without.stderr) == (2, True)
    made = run("setup")
    assert made.returncode == 0, made.stdout + made.stderr
    port, metrics, http, triton_metrics = free_ports(4)
    ports = ["--port", port, "--metrics-port", metrics, "--triton-http-port", http]
    started = Program.start(
        "run", [*ports, "--triton-metrics-port", triton_metrics], tmp_path / "log", program=[program], env=variables
    )
    try:
        started.wait_until(lambda: "immich-triton is up" in started.console, 300)
        url = f"http://127.0.0.1:{port}"
        answer = run("predict", "--url", url, DATA / "images/zh_receipt.jpg")
        assert "华东超市购物小票" in answer.stdout, answer.stdout + answer.stderr
        looked = run("doctor", "--url", url, "--triton", f"http://127.0.0.1:{http}")
        assert "0 errors" in looked.stdout, looked.stdout
        assert run("health", "--run-dir", tmp_path / f"state/immich-triton/run/{port}").returncode == 0
    finally:
        code = started.stop()
    assert code == 0, started.console
    assert not any(empty.iterdir())
