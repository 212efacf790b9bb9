"""``mapped_weights``: what of a process's memory it lets go, and what not."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from onnxruntime_backend.mapped_weights import let_go

PAGES = 16
SIZE = PAGES * mmap.PAGESIZE


def resident(path: Path) -> int:
    """Return the bytes of *path* that are in this process's memory."""
    text = Path("/proc/self/smaps").read_text()
    mapping = text.split(str(path), 1)[1]
    return int(mapping.split("Rss:", 1)[1].split()[0]) * 1024


@pytest.mark.parametrize("access", [mmap.ACCESS_READ, mmap.ACCESS_COPY], ids=["OpenVINO", "ONNX Runtime"])
def test_a_mapped_file_that_nobody_wrote_to_is_read_anew(tmp_path: Path, access: int) -> None:
    """ONNX Runtime maps a file so that it could write: private, and writable."""
    path = tmp_path / "weights of a model"
    path.write_bytes(b"w" * SIZE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=access) as memory:
        assert memory.read() == b"w" * SIZE
        assert let_go(tmp_path) == SIZE
        assert resident(path) == 0
        assert memory[:] == b"w" * SIZE
        assert resident(path) == SIZE


def test_files_elsewhere_and_what_was_written_to_stay(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model2").mkdir()
    for name in ("model/weights", "model2/weights"):
        (tmp_path / name).write_bytes(b"w" * SIZE)
    with (
        (tmp_path / "model2/weights").open("rb") as other,
        (tmp_path / "model/weights").open("rb") as own,
        mmap.mmap(other.fileno(), 0, access=mmap.ACCESS_READ) as elsewhere,
        mmap.mmap(own.fileno(), 0, access=mmap.ACCESS_COPY) as written,
    ):
        written[0] = 0
        assert let_go(tmp_path / "model") == 0
        assert elsewhere[0] == ord("w")
        assert written[0] == 0


def test_without_a_list_of_mappings_nothing_happens(tmp_path: Path) -> None:
    assert let_go(tmp_path, maps=tmp_path / "missing") == 0
