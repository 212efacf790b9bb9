"""What is ready does not wait for what is slow; ordinary images come before large ones."""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from immich_pipelines import large
from immich_pipelines.large import ordinary_first
from immich_pipelines.stragglers import in_groups, in_order


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_what_is_ready_together_stays_together(pool: ThreadPoolExecutor) -> None:
    assert list(in_groups(pool, str, [(2, "c"), (0, "a"), (1, "b")], patience=60)) == [[(0, "a"), (1, "b"), (2, "c")]]
    assert list(in_groups(pool, str, [], patience=60)) == []


def test_one_alone_is_prepared_by_who_asks(pool: ThreadPoolExecutor) -> None:
    ((_, thread),) = next(in_groups(pool, lambda _job: threading.current_thread(), [(3, "a")], patience=60))
    assert thread is threading.current_thread()
    threads = next(in_groups(pool, lambda _job: threading.current_thread(), [(0, "a"), (1, "b")], patience=60))
    assert threading.current_thread() not in [thread for _, thread in threads]


def test_a_slow_one_does_not_hold_up_the_others(pool: ThreadPoolExecutor) -> None:
    let_go = threading.Event()

    def prepare(job: str) -> str:
        if job == "slow":
            assert let_go.wait(60)
        return job

    groups = in_groups(pool, prepare, [(0, "slow"), (1, "b"), (2, "c"), (3, "d")], patience=0.1)
    first: list[tuple[int, str]] = []
    while len(first) < 3:  # a busy machine may hand them out one by one
        first += next(groups)
    assert in_order(first) == ["b", "c", "d"]
    let_go.set()
    assert list(groups) == [[(0, "slow")]]


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_large_images_come_last() -> None:
    images = [picture(100, 601), picture(640, 480), b"no image", picture(4000, 2001), picture(600, 100)]
    assert ordinary_first(list(enumerate(images)), lambda item: item[1]) == ([1, 2, 4], [0, 3])


def test_an_image_whose_size_cannot_be_told_is_not_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes) -> tuple[int, int]:
        raise struct.error(f"{len(data)} bytes are too few")

    monkeypatch.setattr(large, "size_of", fail)
    assert not large.is_large(b"an image")
