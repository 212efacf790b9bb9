"""What runs without an installed package of ours, and with packages that stand in for others."""

from __future__ import annotations

import re
import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gateway_process import running_gateway
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from places import PROJECT
from recorder import recording_upstream
from scrape import Scrape
from stand_in_triton import stand_in_triton, write_routes

import immich_triton
from benchmarks import environment
from immich_triton.core import versions
from immich_triton.immich.ml_client import entries_for, predict

PLACES = ("addons", "scripts", "triton_backends")


def gateway_packages() -> Iterator[metadata.Distribution]:
    """Yield what requirements-gateway.lock brings on this platform."""
    lock = (PROJECT / "requirements-gateway.lock").read_text()
    for name in re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE):
        try:
            yield metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for other platforms
            continue


@pytest.fixture
def mitmdump(tmp_path: Path) -> Path:
    """Give a mitmdump in an environment that holds requirements-gateway.lock, and no package of this project."""
    venv.create(tmp_path / "venv", symlinks=True)
    site = tmp_path / "venv/lib/python3.12/site-packages"
    for package in gateway_packages():
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(package.locate_file(top))))
    program = tmp_path / "venv/bin/mitmdump"
    program.write_text(f"#!{tmp_path}/venv/bin/python\nfrom mitmproxy.tools.main import mitmdump\nmitmdump()\n")
    program.chmod(0o755)
    return program


def test_plain_mitmdump_answers_without_an_installed_package(mitmdump: Path, tmp_path: Path) -> None:
    models = write_routes(tmp_path / "models")
    with (
        stand_in_triton() as triton,
        recording_upstream() as upstream,
        running_gateway(
            tmp_path, models=models, triton_url=triton.url, upstream=upstream.url, program=str(mitmdump)
        ) as gateway,
    ):
        assert predict(gateway.url, entries_for("ocr"), image=b"image").status == 200
        labels = {"version": immich_triton.__version__, "mitmproxy": metadata.version("mitmproxy")}
        assert Scrape(gateway.metrics_url).value("immich_gateway_build_info", **labels) == 1


def test_a_built_package_has_the_same_version() -> None:
    assert ProjectMetadata(str(PROJECT), PluginManager()).version == versions.own()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let nothing be installed but what a test puts into the folder."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def install(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize("name", versions.ONNX_RUNTIME)
def test_any_package_of_onnx_runtime_will_do(installed: Path, name: str) -> None:
    install(installed, name, "1.31.1")
    assert versions.of_onnx_runtime() == ("1.31.1" if name == "onnxruntime" else f"1.31.1 ({name})")


def test_what_is_not_installed_is_unknown(installed: Path) -> None:
    assert versions.of("onnxruntime") == versions.of_onnx_runtime() == versions.UNKNOWN == "unknown"


def test_the_benchmark_describes_a_machine_with_onnxruntime_gpu(installed: Path) -> None:
    install(installed, "onnxruntime-gpu", "1.31.1")
    gateway: Any = SimpleNamespace(triton="http://127.0.0.1:9")
    facts = environment.describe(gateway)
    assert facts["onnxruntime"] == "1.31.1 (onnxruntime-gpu)"
    assert facts["openvino"] == "unknown"


def test_nothing_else_asks_for_the_version_of_a_package() -> None:
    for path in [path for place in PLACES for path in (PROJECT / place).glob("**/*.py")]:
        if path.name != "versions.py":
            assert not re.search(r"importlib\.metadata|import metadata\b|pkg_resources", path.read_text()), path
