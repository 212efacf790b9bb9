"""The package as a user gets it: a wheel in a bare Python 3.12, an empty folder, no clone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import DATA, PROJECT

from harness.ports import free_ports
from harness.program import Program
from immich_triton.export.ocr import calibration

CARRIED = (
    *(f"addons/immich_{product}.py" for product in ("ml", "web")),
    *(f"requirements{name}.lock" for name in ("", "-gpu", "-web", "-export")),
    *(f"deploy/sql/{name}" for name in ("install.sql", "uninstall.sql", "README.md")),
)
"""What a clone has beside the package and a user needs."""


def build(folder: Path) -> Path:
    """Build the wheel into *folder*."""
    line = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([*line, str(folder), str(PROJECT)], check=True)
    (wheel,) = folder.glob("immich_triton-*.whl")
    return wheel


def test_the_wheel_carries_what_lies_beside_the_package(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tmp_path)) as wheel:
        names = set(wheel.namelist())
        assert {f"immich_triton/_shipped/{path}" for path in CARRIED} <= names
        assert "immich_triton/web/menu.js" in names
        assert {f"immich_triton/export/ocr/calibration/{path.name}" for path in calibration.files()} <= names
        for path in CARRIED:
            assert wheel.read(f"immich_triton/_shipped/{path}") == (PROJECT / path).read_bytes()


@pytest.mark.timeout(900)
def test_from_the_wheel_alone_setup_run_predict_and_doctor_work(tmp_path: Path) -> None:
    wheel = build(tmp_path)
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
    without_site = run("run", "--web", "http://127.0.0.1:9")
    assert (without_site.returncode, "run: immich-triton setup --web\n" in without_site.stderr) == (2, True)
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
