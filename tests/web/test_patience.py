"""How long something is waited for: a while, and longer while something else is waited for anyway."""

from __future__ import annotations

import asyncio

import pytest

from immich_triton.web.patience import SOON, Patience

LONG = 600.0


async def test_it_ends() -> None:
    patience = Patience(0.02)
    with pytest.raises(TimeoutError):
        async with patience.limit():
            await asyncio.sleep(LONG)
    assert patience.is_over
    assert patience.left == SOON
    with pytest.raises(TimeoutError):  # and not without an end
        async with patience.limit():
            await asyncio.sleep(LONG)


async def test_it_lasts_while_something_else_does() -> None:
    patience = Patience(0.02, most=LONG)
    async with patience.limit(0.5):
        await asyncio.sleep(0.1)
    assert not patience.is_over
    assert patience.left > 0.02


async def test_what_is_under_way_ends_when_the_other_does() -> None:
    patience = Patience(0.02, most=LONG)
    under_way = asyncio.Event()

    async def wait() -> None:
        async with patience.limit(0.5), patience.limit():
            under_way.set()
            await asyncio.sleep(LONG)

    waiting = asyncio.create_task(wait())
    await under_way.wait()
    await asyncio.sleep(0.1)
    assert not waiting.done()
    patience.end()
    with pytest.raises(TimeoutError):
        await waiting
    assert patience.is_over


async def test_what_has_time_left_keeps_it() -> None:
    patience = Patience(LONG, most=LONG)

    async def wait() -> None:
        async with patience.limit(0.5):
            await asyncio.sleep(0.05)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    patience.end()
    await waiting
    assert 0 < patience.left <= LONG


async def test_a_share_of_a_long_time_is_that_share_of_the_short_one_in_the_end() -> None:
    patience = Patience(LONG, most=4 * LONG)
    now = asyncio.get_running_loop().time()
    async with patience.limit(0.5) as limit:
        ends = limit.when()
        assert ends == pytest.approx(now + 2 * LONG, abs=LONG / 10)
        patience.end()
        assert limit.when() == pytest.approx(now + LONG / 2, abs=LONG / 10)
