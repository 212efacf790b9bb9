"""InsightFace's packs: what is taken out of an archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from immich_triton.export.faces.packs import LICENCE, PACKS, PackError, unpack

PACK = PACKS["buffalo_l"]


def archive(folder: Path, *members: str) -> Path:
    path = folder / "pack.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member in members:
            file.writestr(member, member)
    return path


@pytest.mark.parametrize("folder", ["", "buffalo_l/", "a/b/"])
def test_only_the_names_of_the_files_count(tmp_path: Path, folder: str) -> None:
    path = archive(tmp_path, f"{folder}{PACK.recognizer}", f"{folder}{PACK.detector}", f"{folder}genderage.onnx")
    detector, recognizer = unpack(path, PACK, tmp_path)
    assert (detector, recognizer) == (tmp_path / PACK.detector, tmp_path / PACK.recognizer)
    assert (detector.read_text(), recognizer.read_text()) == (folder + PACK.detector, folder + PACK.recognizer)
    assert not (tmp_path / "genderage.onnx").exists()


def test_a_path_in_an_archive_leads_nowhere_else(tmp_path: Path) -> None:
    target = tmp_path / "inside"
    target.mkdir()
    unpack(archive(tmp_path, f"../{PACK.detector}", f"/{PACK.recognizer}"), PACK, target)
    assert sorted(path.name for path in target.iterdir()) == sorted([PACK.detector, PACK.recognizer])
    assert not (tmp_path / PACK.detector).exists()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ((), f"should hold one {PACK.detector}, but holds nothing"),
        ((PACK.detector,), f"should hold one {PACK.recognizer}, but holds {PACK.detector}"),
        ((PACK.detector, f"a/{PACK.detector}"), f"should hold one {PACK.detector}, but holds a/{PACK.detector}, "),
    ],
)
def test_another_archive_is_refused(tmp_path: Path, members: tuple[str, ...], why: str) -> None:
    with pytest.raises(PackError, match=why):
        unpack(archive(tmp_path, *members), PACK, tmp_path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pack.zip").write_bytes(b"no archive")
    with pytest.raises(PackError, match="cannot be read as a ZIP file"):
        unpack(tmp_path / "pack.zip", PACK, tmp_path)


def test_every_pack_is_pinned_and_comes_with_its_licence() -> None:
    assert len({pack.sha256 for pack in PACKS.values()}) == len(PACKS)
    for name, pack in PACKS.items():
        assert name == pack.name
        assert pack.url.endswith(f"/v0.7/{name}.zip")
        assert len(bytes.fromhex(pack.sha256)) == 32
    assert "NON-COMMERCIAL RESEARCH" in LICENCE
