"""The scripts that build the image: what of pip's configuration reaches the inside, and what the build takes along."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from places import PROJECT

from image import container, pip_mounts
from immich_triton.server import processes


def test_pips_configuration_is_translated(tmp_path: Path) -> None:
    (tmp_path / "index/simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    certificate = tmp_path / "ca.pem"
    certificate.touch()
    found = {
        "global": {
            "index-url": f"file://{tmp_path}/index/simple",
            "extra-index-url": f"https://pypi.example/simple file://{tmp_path}/index/more",
            "find-links": str(tmp_path / "wheels"),
            "cert": str(certificate),
            "timeout": "60",
        },
        "install": {"constraint": "/not/there.txt"},
    }
    text, mounts = pip_mounts.translate(found)
    assert text.splitlines() == [
        "[global]",
        "index-url = file:///mnt/pip/0/simple",
        f"extra-index-url = https://pypi.example/simple file://{tmp_path}/index/more",
        "find-links = /mnt/pip/1",
        "cert = /mnt/pip/2",
        "timeout = 60",
        "[install]",
        "constraint = /not/there.txt",
    ]
    # The folder above an index, since its pages link to files beside it.
    assert [(str(source), str(target)) for source, target in mounts] == [
        (str(tmp_path / "index"), "/mnt/pip/0"),
        (str(tmp_path / "wheels"), "/mnt/pip/1"),
        (str(certificate), "/mnt/pip/2"),
    ]


def test_what_the_environment_tells_pip_reaches_the_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    found = pip_mounts.settings()["global"]
    assert found["find-links"] == str(tmp_path)
    assert found["proxy"] == "http://proxy.example:3128"


@pytest.mark.parametrize(
    "script", [PROJECT / ".ci/run", *sorted((PROJECT / "scripts/lab/image").glob("*.sh"))], ids=lambda path: path.name
)
def test_the_shell_scripts_can_be_read_by_bash(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert "set -euo pipefail" in script.read_text() or script.name == "storage.sh"


def test_the_image_holds_what_the_commands_in_the_dockerfile_need() -> None:
    dockerfile = (PROJECT / "deploy/docker/Dockerfile").read_text()
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    for script in re.findall(r'"(scripts/[a-z_]+\.py)"', dockerfile):
        assert (PROJECT / script).is_file(), script
    assert ignored.index("!scripts") < ignored.index("scripts/lab")


def test_the_main_process_is_the_oldest_without_a_parent_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Process ids have begun anew: an orphan, as those that decode images are, has a lower one than the supervisor."""
    stats = {32_700: (1, 10), 7: (1, 30), 8: (32_700, 20)}  # parent, start
    monkeypatch.setattr(processes, "pids", lambda: iter(sorted(stats)))
    monkeypatch.setattr(processes, "parent", lambda pid: stats[pid][0])
    monkeypatch.setattr(processes, "started", lambda pid: stats[pid][1])
    monkeypatch.setattr(Path, "read_bytes", lambda _path: b"A=1\0IMAGE_PROOF=mine\0")
    running = object.__new__(container.Running)
    running._mark = "IMAGE_PROOF=mine"
    assert running.pids() == [32_700, 7, 8]
    assert running.main() == 32_700


def ci_run(folder: Path, *, user: int, image: int) -> subprocess.CompletedProcess[str]:
    """Run .ci/run in a project whose make does nothing, as *user*; building the image ends with the code *image*."""
    programs = {
        "bin/id": f"echo {user}",
        "bin/apt-get": "true",
        "bin/dpkg": "true",
        "bin/make": 'echo "made $1 $PYTEST_ADDOPTS"',
        "scripts/lab/image/check.sh": f"exit {image}",
        ".ci/run": (PROJECT / ".ci/run").read_text(),
    }
    for name, text in programs.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    line = ["bash", str(folder / ".ci/run")]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


def test_everything_is_checked_and_every_stage_is_timed(tmp_path: Path) -> None:
    ended = ci_run(tmp_path, user=0, image=0)
    assert ended.returncode == 0
    made = [line.split() for line in re.findall(r"^made (.*)$", ended.stdout, re.MULTILINE)]
    assert made == [["setup"], ["test-all", "--no-missing-packages"]]
    timed = re.findall(r"^\.ci/run: (\w+) +\d+:\d\d minutes$", ended.stdout, re.MULTILINE)
    assert timed == ["packages", "setup", "image", "tests"]


def test_as_root_an_image_that_fails_fails_everything(tmp_path: Path) -> None:
    ended = ci_run(tmp_path, user=0, image=3)
    assert ended.returncode == 3
    assert re.search(r"^\.ci/run: image +\d+:\d\d minutes, FAILED \(3\)$", ended.stdout, re.MULTILINE)
    assert "made test" not in ended.stdout


def test_who_is_not_root_is_told_that_the_image_is_not_built(tmp_path: Path) -> None:
    ended = ci_run(tmp_path, user=1000, image=3)
    assert ended.returncode == 0
    assert "the image is not built: that takes root" in ended.stdout
    assert "made test-all \n" in ended.stdout
