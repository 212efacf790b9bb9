"""The words between gateway and supervisor, and the socket that they go through."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from immich_triton.core.model_states import LONGEST, NAME, States, address, ask, ask_soon, question
from immich_triton.server.idle import Idle
from immich_triton.server.idle_socket import IdleSocket


def test_what_is_said_is_what_is_read() -> None:
    states = States({"ocr": "ready", "ocr_det": "failed"}, {"ocr_det": "no memory"}, 600.0)
    assert States.decode(states.encode()) == states


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"models": [], "reasons": {}, "awake_seconds": 1}',
        b'{"models": {"ocr": "dreaming"}, "reasons": {}, "awake_seconds": 1}',
        b'{"models": {"ocr": ["ready"]}, "reasons": {}, "awake_seconds": 1}',
        b'{"models": {}, "reasons": {}, "awake_seconds": null}',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_no_answer(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"no states|Expecting|recursion"):
        States.decode(line)


def test_a_question_fits_a_line() -> None:
    assert question("ocr\n").count(b"\n") == 1
    assert len(question("o" * 255)) < LONGEST


def test_a_folder_may_have_a_longer_name_than_the_kernel_takes(tmp_path: Path) -> None:
    door = IdleSocket(tmp_path / ("long" * 50), Idle(10))
    door.open()
    try:
        assert ask(door.path).awake_seconds == 600
    finally:
        door.close()
    assert not door.path.exists()


def test_nobody_answers_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ask(tmp_path / "away" / NAME)
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(ask_soon(tmp_path / NAME))


def test_who_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async def silent() -> None:
        ended = asyncio.Event()

        async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await ended.wait()
            writer.close()

        with address(tmp_path / NAME) as place:
            server = await asyncio.start_unix_server(say_nothing, place)
        async with server:
            with pytest.raises(TimeoutError):
                await ask_soon(tmp_path / NAME)
            ended.set()

    asyncio.run(silent())
