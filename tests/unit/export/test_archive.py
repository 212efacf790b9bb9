"""A repository moves to another machine whole and as it was, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from immich_triton.export import archive as archives
from immich_triton.export.archive import ArchiveError, archive, describe, restore
from immich_triton.export.manifest import FILE, changed_files, files_of, model_folders
from immich_triton.export.repository import SOURCE, install_pipelines, sha256


def repository(models: Path, *nets: str) -> Path:
    for net in nets or ("net", "net_with_route"):
        (models / net / "1").mkdir(parents=True)
        (models / net / "1/model.onnx").write_bytes(os.urandom(100_000))
        (models / net / "config.pbtxt").write_text(f'name: "{net}"\n')
        if net.endswith("route"):
            (models / net / "route.toml").write_text("task = 1\n")
    return models


def contents(models: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(models)): path.read_bytes()
        for folder in model_folders(models)
        for path in files_of(folder)
    }


def left_over(models: Path) -> list[str]:
    return [path.name for path in models.iterdir() if path.name.startswith(".")] if models.exists() else []


@pytest.mark.parametrize("name", ["models.tar", "models.tar.gz"])
def test_what_was_archived_is_restored_with_its_hashes(tmp_path: Path, name: str) -> None:
    models, target = repository(tmp_path / "here"), tmp_path / name
    hashes = archive(models, target)
    assert [*describe(hashes)] == ["net", "net_with_route"]
    assert restore(target, tmp_path / "there") == ["net", "net_with_route"]
    assert contents(tmp_path / "there") == contents(models)
    assert changed_files(tmp_path / "there") == {}
    assert left_over(tmp_path / "there") == []


def test_equal_repositories_make_equal_archives(tmp_path: Path) -> None:
    models = repository(tmp_path / "here")
    archive(models, tmp_path / "one.tar")
    os.utime(models / "net/config.pbtxt", (1, 1))
    archive(models, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_an_archive_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match="holds no model"):
        archive(tmp_path / "empty", tmp_path / "models.tar")
    models = repository(tmp_path / "here")

    def digest_before_an_export(content: Path | bytes) -> str:
        return hashlib.sha256(b"before").hexdigest()

    monkeypatch.setattr(archives, "_digest", digest_before_an_export)
    with pytest.raises(ArchiveError, match="changed while it was archived"):
        archive(models, tmp_path / "models.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "here"]


def test_models_that_are_there_are_kept_unless_they_are_to_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "models.tar"
    archive(repository(tmp_path / "here", "net"), target)
    there = repository(tmp_path / "there", "net", "other")
    before = contents(there)
    with pytest.raises(ArchiveError, match=r"has net already; nothing was written\. --replace"):
        restore(target, there)
    assert contents(there) == before
    assert restore(target, there, replace=True) == ["net"]
    assert contents(there)["net/1/model.onnx"] == contents(tmp_path / "here")["net/1/model.onnx"]
    assert contents(there)["other/1/model.onnx"] == before["other/1/model.onnx"]


def test_the_hashes_of_two_archives_come_together(tmp_path: Path) -> None:
    for net in ("one", "two"):
        archive(repository(tmp_path / net, net), tmp_path / f"{net}.tar")
        restore(tmp_path / f"{net}.tar", tmp_path / "there")
    assert changed_files(tmp_path / "there") == {}
    (tmp_path / "there/one/1/model.onnx").write_bytes(b"damaged")
    assert changed_files(tmp_path / "there") == {"one/1/model.onnx": "changed"}


def test_if_one_model_cannot_be_put_in_its_place_the_others_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "models.tar"
    archive(repository(tmp_path / "here", "a", "b"), target)
    there = repository(tmp_path / "there", "a", "b")
    before = contents(there)
    rename = Path.rename

    def fails_for_b(self: Path, to: Path) -> Path:
        if self.parent.name == "new" and self.name == "b":
            raise OSError("the disk is gone")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails_for_b)
    with pytest.raises(OSError, match="the disk is gone"):
        restore(target, there, replace=True)
    monkeypatch.undo()
    assert contents(there) == before
    assert left_over(there) == []


def test_an_edited_pipeline_stays_edited_and_its_code_is_that_of_the_program(tmp_path: Path) -> None:
    models = repository(tmp_path / "here", "net")
    install_pipelines(models, ["ocr"])
    config = models / "ocr/config.pbtxt"
    config.write_text(config.read_text() + "# edited here\n")
    code, installed = models / "ocr/1/model.py", models / "ocr/installed.json"
    code.write_text("# of an older version\n")
    installed.write_text(json.dumps({**json.loads(installed.read_text()), "1/model.py": sha256(code)}))
    archive(models, tmp_path / "models.tar")
    assert restore(tmp_path / "models.tar", tmp_path / "there") == ["net", "ocr"]
    there = tmp_path / "there/ocr"
    assert "# edited here" in (there / "config.pbtxt").read_text()
    assert (there / "1/model.py").read_bytes() == (SOURCE / "ocr/1/model.py").read_bytes()
    assert changed_files(tmp_path / "there") == {}


def test_a_pipeline_that_is_there_is_left_alone(tmp_path: Path) -> None:
    models = repository(tmp_path / "here", "net")
    install_pipelines(models, ["ocr"])
    archive(models, tmp_path / "models.tar")
    there = tmp_path / "there"
    install_pipelines(there, ["ocr"])
    (there / "ocr/config.pbtxt").write_text("mine")
    assert restore(tmp_path / "models.tar", there) == ["net"]
    assert (there / "ocr/config.pbtxt").read_text() == "mine"


def test_a_pipeline_of_a_clone_gets_its_list_of_shipped_files(tmp_path: Path) -> None:
    models = repository(tmp_path / "here", "net")
    (models / "ocr/1").mkdir(parents=True)
    for name in ("config.pbtxt", "1/model.py"):
        (models / "ocr" / name).write_bytes((SOURCE / "ocr" / name).read_bytes())
    assert "ocr/installed.json" in archive(models, tmp_path / "models.tar")


# Files from elsewhere


Member = tuple[str, bytes, bytes]
"""Name, contents, type."""


def made(target: Path, *members: Member, hashes: dict[str, bytes] | None = None) -> Path:
    """Write a tar as an attacker would; *hashes* are the contents that its list is about."""
    listed = {name: data for name, data, _ in members} if hashes is None else hashes
    text = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in listed.items())
    with tarfile.open(target, "w") as tar:
        for name, data, kind in ((FILE, text.encode(), tarfile.REGTYPE), *members):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data) if kind == tarfile.REGTYPE else 0
            info.linkname = "../../victim"
            tar.addfile(info, io.BytesIO(data))
    return target


FILE_, LINK, HARD, DEVICE, FOLDER = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.DIRTYPE,
)


@pytest.mark.parametrize(
    "members",
    [
        [("../victim", b"x", FILE_)],
        [("net/../../victim", b"x", FILE_)],
        [("/tmp/victim", b"x", FILE_)],  # noqa: S108
        [("victim", b"x", FILE_)],
        [(".net/victim", b"x", FILE_)],
        [("net/link", b"", LINK)],
        [("net/link", b"", HARD)],
        [("net/device", b"", DEVICE)],
        [("net/folder", b"", FOLDER)],
        [("net/twice", b"x", FILE_), ("net/twice", b"x", FILE_)],
    ],
)
def test_what_leads_elsewhere_or_is_no_file_is_refused(tmp_path: Path, members: list[Member]) -> None:
    (tmp_path / "victim").write_bytes(b"safe")
    source = made(tmp_path / "models.tar", *members)
    with pytest.raises(ArchiveError, match=r"cannot be restored: .* Nothing was written"):
        restore(source, tmp_path / "a/there")
    assert (tmp_path / "victim").read_bytes() == b"safe"
    assert [*(tmp_path / "a/there").iterdir()] == []


@pytest.mark.parametrize(
    ("members", "hashes", "problem"),
    [
        ([("net/1/model.onnx", b"damaged", FILE_)], {"net/1/model.onnx": b"right"}, "another SHA-256"),
        ([("net/more", b"x", FILE_)], {"net/1/model.onnx": b"right"}, "not in models.sha256"),
        ([], {"net/1/model.onnx": b"right"}, "is missing: the file was cut off"),
        ([], {}, "is empty"),
    ],
)
def test_what_the_list_does_not_vouch_for_is_refused(
    tmp_path: Path, members: list[Member], hashes: dict[str, bytes], problem: str
) -> None:
    source = made(tmp_path / "models.tar", *members, hashes=hashes)
    with pytest.raises(ArchiveError, match=problem):
        restore(source, tmp_path / "there")
    assert [*(tmp_path / "there").iterdir()] == []


def cut_off(data: bytes) -> bytes:
    return data[: len(data) // 2]


def bit_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("name", ["models.tar", "models.tar.gz"])
@pytest.mark.parametrize("damage", [cut_off, bit_flipped, lambda _data: b"no tar", lambda _data: b""])
def test_a_damaged_file_changes_nothing(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    target = tmp_path / name
    archive(repository(tmp_path / "here"), target)
    target.write_bytes(damage(target.read_bytes()))
    with pytest.raises((ArchiveError, OSError)):
        restore(target, tmp_path / "there")
    assert [*(tmp_path / "there").iterdir()] == []


def test_a_disk_without_room_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "models.tar"
    archive(repository(tmp_path / "here"), target)
    monkeypatch.setattr(archives, "KEPT_FREE", 1 << 60)
    with pytest.raises(ArchiveError, match="MiB free, too few; nothing was written"):
        restore(target, tmp_path / "there")
    assert [*(tmp_path / "there").iterdir()] == []
