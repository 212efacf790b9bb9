"""Who asks Triton next, and how much may wait."""

from __future__ import annotations

import asyncio

import pytest

from immich_triton.proxy.budget import Budget
from immich_triton.triton.admission import Places, Priority, Ticket


async def waiter(places: Places, priority: Priority, name: str, served: list[str]) -> None:
    await places.take(Ticket(priority))
    served.append(name)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_never_gives_more_places_than_there_are() -> None:
    places = Places(2)
    served: list[str] = []
    tasks = [asyncio.create_task(waiter(places, Priority.IMAGE, str(index), served)) for index in range(5)]
    await settle()
    assert (served, places.taken, places.waiting) == (["0", "1"], 2, 3)
    places.free(Ticket(Priority.IMAGE))
    await settle()
    assert (served, places.taken, places.waiting) == (["0", "1", "2"], 2, 2)
    places.resize(4, large=1)
    await settle()
    assert (len(served), places.taken, places.waiting) == (5, 4, 0)
    await asyncio.gather(*tasks)


async def test_queries_go_first_and_else_the_order_is_kept() -> None:
    places = Places(0)
    served: list[str] = []
    order = [("image 1", Priority.IMAGE), ("query 1", Priority.QUERY), ("image 2", Priority.IMAGE)]
    order.append(("query 2", Priority.QUERY))
    tasks = [asyncio.create_task(waiter(places, priority, name, served)) for name, priority in order]
    await settle()
    places.resize(4, large=1)
    await asyncio.gather(*tasks)
    assert served == ["query 1", "query 2", "image 1", "image 2"]


async def test_a_request_that_is_tried_again_keeps_its_turn() -> None:
    places = Places(0)
    first, second = Ticket(Priority.IMAGE), Ticket(Priority.IMAGE)
    served: list[Ticket] = []

    async def come(ticket: Ticket) -> None:
        await places.take(ticket)
        served.append(ticket)

    tasks = [asyncio.create_task(come(second))]
    await settle()
    tasks.append(asyncio.create_task(come(first)))
    await settle()
    places.resize(2, large=1)
    await asyncio.gather(*tasks)
    assert served == [first, second]


async def test_who_leaves_the_queue_takes_no_place_and_leaves_nothing_behind() -> None:
    seen: list[tuple[int, int]] = []
    places = Places(1, lambda waiting, taken: seen.append((waiting, taken)))
    await places.take(Ticket(Priority.IMAGE))
    for _ in range(500):
        gone = asyncio.create_task(places.take(Ticket(Priority.IMAGE)))
        await settle()
        gone.cancel()
        await asyncio.wait([gone])
    assert (places.waiting, places.taken, seen[-1]) == (0, 1, (0, 1))
    places.free(Ticket(Priority.IMAGE))
    assert places.taken == 0


async def test_a_place_that_comes_in_the_moment_of_the_end_is_given_back() -> None:
    places = Places(1)
    await places.take(Ticket(Priority.IMAGE))
    late = asyncio.create_task(places.take(Ticket(Priority.IMAGE)))
    await settle()
    places.free(Ticket(Priority.IMAGE))
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert places.taken == 0


async def test_large_images_leave_places_to_others_and_wait_themselves() -> None:
    places = Places(6, large=2)
    served: list[str] = []

    async def come(name: str, *, large: bool) -> Ticket:
        ticket = Ticket(Priority.IMAGE, large=large)
        await places.take(ticket)
        served.append(name)
        return ticket

    large = [asyncio.create_task(come(f"large {index}", large=True)) for index in range(4)]
    ordinary = [asyncio.create_task(come(f"ordinary {index}", large=False)) for index in range(5)]
    await settle()
    first = ["large 0", "large 1", "ordinary 0", "ordinary 1", "ordinary 2", "ordinary 3"]
    assert (sorted(served), places.taken, places.waiting) == (first, 6, 3)
    places.free(ordinary[0].result())
    await settle()
    assert served[-1] == "ordinary 4"
    # With a place free for anybody, the next large one still waits for one of its own.
    places.free(ordinary[1].result())
    await settle()
    assert (places.taken, places.waiting) == (5, 2)
    places.free(large[0].result())
    await settle()
    assert (served[-1], places.taken, places.waiting) == ("large 2", 5, 1)
    places.resize(6, large=3)
    await settle()
    assert (served[-1], places.taken, places.waiting) == ("large 3", 6, 0)


async def test_a_large_image_that_leaves_makes_room_for_the_next_one() -> None:
    places = Places(4)
    first, gone, next_ = (Ticket(Priority.IMAGE, large=True) for _ in range(3))
    await places.take(first)
    leaving, waiting = (asyncio.create_task(places.take(ticket)) for ticket in (gone, next_))
    await settle()
    leaving.cancel()
    await settle()
    assert places.waiting == 1
    places.free(first)
    await waiting
    assert (places.taken, places.waiting) == (1, 0)


def test_a_budget_takes_all_or_nothing() -> None:
    budget = Budget(100)
    assert budget.take(60)
    assert not budget.take(41)
    assert budget.held == 60
    budget.take_anyway(50)
    budget.free(60)
    assert budget.held == 50
