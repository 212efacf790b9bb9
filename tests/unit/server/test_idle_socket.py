"""The supervisor's socket, asked by good and bad."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.program import eventually
from immich_triton.core.model_states import NAME, address, ask, question
from immich_triton.server.idle import Idle
from immich_triton.server.idle_socket import IdleSocket


class Now:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Now:
    return Now()


@pytest.fixture
def idle(clock: Now) -> Idle:
    idle = Idle(10, clock)
    idle.follow({"ocr_rec": ("ocr",)})
    idle.begin(["ocr"])
    idle.report(loading=(), failed={})
    return idle


@pytest.fixture
def door(tmp_path: Path, idle: Idle) -> Iterator[IdleSocket]:
    door = IdleSocket(tmp_path, idle)
    door.open()
    yield door
    door.close()


def say(door: IdleSocket, line: bytes) -> bytes:
    with address(door.path) as place, socket.socket(socket.AF_UNIX) as client:
        client.connect(place)
        client.sendall(line)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").readline()


def test_whoever_says_that_a_route_is_asked_for_wakes_it(door: IdleSocket, idle: Idle, clock: Now) -> None:
    clock.now = 600
    idle.naps(lambda _model: True)
    assert ask(door.path).models == {"ocr": "asleep"}
    assert b'"waking"' in say(door, question("ocr_rec"))
    assert idle.woken() == ["ocr_rec"]


def test_a_mere_question_wakes_nobody(door: IdleSocket, idle: Idle, clock: Now) -> None:
    clock.now = 599
    ask(door.path)
    clock.now = 600
    assert idle.naps(lambda _model: True)
    assert ask(door.path).models == {"ocr": "asleep"}


@pytest.mark.parametrize("line", [b"", b"\n", b"no json\n", b"[]\n", b"3\n", b"[" * 100_000 + b"\n", b"\xff\n"])
def test_whatever_else_comes_gets_no_answer_and_harms_nobody(door: IdleSocket, line: bytes) -> None:
    assert say(door, line) == b""
    assert ask(door.path).models == {"ocr": "ready"}


def test_only_its_user_may_speak_to_it(door: IdleSocket) -> None:
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o600


def test_one_that_a_killed_supervisor_left_is_replaced(tmp_path: Path, idle: Idle) -> None:
    with address(tmp_path / NAME) as place, socket.socket(socket.AF_UNIX) as left:
        left.bind(place)
    door = IdleSocket(tmp_path, idle)
    door.open()
    try:
        assert ask(door.path).models == {"ocr": "ready"}
    finally:
        door.close()


def test_it_comes_back_when_the_run_directory_is_removed(door: IdleSocket) -> None:
    door.path.unlink()

    def is_back() -> bool:
        door.poll()
        return door.path.exists()

    assert eventually(is_back)
    assert ask(door.path).models == {"ocr": "ready"}
