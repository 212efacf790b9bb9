"""The list of hashes: sha256sum's own format, and only names of a model's files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from immich_triton.export.manifest import (
    FILE,
    ManifestError,
    changed_files,
    check_name,
    files_of,
    model_folders,
    parsed,
    written,
)
from immich_triton.export.repository import sha256


def repository(models: Path) -> Path:
    (models / "net/1").mkdir(parents=True)
    (models / "net/1/model.onnx").write_bytes(b"weights")
    (models / "net/config.pbtxt").write_text("config")
    (models / "net/1/__pycache__").mkdir()
    (models / "net/1/__pycache__/model.pyc").touch()
    (models / "net/.hidden").touch()
    (models / ".net-new").mkdir()
    (models / "README.md").touch()
    return models


def test_the_files_of_a_model_are_those_that_triton_needs(tmp_path: Path) -> None:
    models = repository(tmp_path)
    assert [folder.name for folder in model_folders(models)] == ["net"]
    assert [path.name for path in files_of(models / "net")] == ["model.onnx", "config.pbtxt"]


def test_what_is_written_is_read_and_sha256sum_understands_it(tmp_path: Path) -> None:
    models = repository(tmp_path)
    hashes = {"net/1/model.onnx": sha256(models / "net/1/model.onnx"), "net/a b": sha256(models / "README.md")}
    shutil.copy(models / "README.md", models / "net/a b")
    (models / FILE).write_text(written(hashes))
    assert parsed((models / FILE).read_text()) == hashes
    subprocess.run(["sha256sum", "--strict", "-c", FILE], cwd=models, check=True, capture_output=True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "net",
        "/net/model",
        "net/../../etc/passwd",
        "../net/model",
        "net/./model",
        "net//model",
        "net/model/",
        ".net/model",
        "net/.hidden",
        "net\\model/x",
        "-net/model",
        "net/\0",
        "C:/x/y",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ManifestError, match="no path of a model's file"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("abc  net/model", "no line of sha256sum"),
        ("0" * 64 + " net/model", "no line of sha256sum"),
        ("0" * 64 + "  ../model", "no path"),
        (("0" * 64 + "  net/model\n") * 2, "twice"),
    ],
)
def test_a_list_that_is_none_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ManifestError, match=problem):
        parsed(text)


def test_what_changed_and_what_is_missing_is_told(tmp_path: Path) -> None:
    models = repository(tmp_path)
    assert changed_files(models) is None
    names = ("net/1/model.onnx", "net/config.pbtxt")
    (models / FILE).write_text(written({name: sha256(models / name) for name in names}))
    assert changed_files(models) == {}
    (models / names[0]).write_bytes(b"other")
    (models / names[1]).unlink()
    assert changed_files(models) == {names[0]: "changed", names[1]: "missing"}
