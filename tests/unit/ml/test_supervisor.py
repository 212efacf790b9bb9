"""The gateway's side: what it tells, what it waits for, what it excuses. The supervisor's side is the real socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.program import eventually
from immich_triton.core.model_states import NAME, States
from immich_triton.ml import supervisor as module
from immich_triton.ml.supervisor import Supervisor
from immich_triton.server.idle import Idle
from immich_triton.server.idle_socket import IdleSocket
from immich_triton.triton.inference import Unavailable
from immich_triton.triton.transport import NOT_READY

MODELS = ("ocr_det", "ocr")


class Site:
    """A supervisor with one route; its clock is set by hand."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.used = 0
        self.idle = Idle(10, lambda: self.now)
        self.idle.follow({"ocr_rec": MODELS})
        self.idle.begin(MODELS)
        self.idle.report(loading=(), failed={})
        use = self.idle.use

        def count(route: str) -> None:
            self.used += 1
            use(route)

        self.idle.use = count  # type: ignore[method-assign]
        self.door = IdleSocket(directory, self.idle)
        self.door.open()

    def sleep(self) -> None:
        self.now += 600
        assert self.idle.naps(lambda _model: True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.door.close()


async def until_used(site: Site, more_than: int = 0) -> None:
    async with asyncio.timeout(60):
        await asyncio.to_thread(eventually, lambda: site.used > more_than)


async def test_many_requests_wait_for_one_that_wakes(site: Site) -> None:
    woke: list[list[str]] = []
    supervisor = Supervisor(site.door.path, woke.append)
    site.sleep()
    began: list[int] = []

    async def one(number: int) -> None:
        async with supervisor.in_use("ocr_rec", MODELS, 60):
            began.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(one(number))
        await until_used(site)
        for model in MODELS:
            assert began == []
            site.idle.loaded(model)
    assert len(began) == 20
    assert sorted(itertools.chain(*woke)) == sorted(MODELS)
    supervisor.close()


async def test_what_does_not_wake_in_time_is_unavailable(site: Site) -> None:
    supervisor = Supervisor(site.door.path)
    site.sleep()
    with pytest.raises(Unavailable, match=r"ocr_rec slept, and its models were not loaded again within 0\.1 s"):
        async with supervisor.in_use("ocr_rec", MODELS, 0.1):
            raise AssertionError("it sleeps")
    supervisor.close()


async def test_what_cannot_be_loaded_goes_on_to_triton_which_says_so(site: Site) -> None:
    supervisor = Supervisor(site.door.path)
    site.sleep()
    site.idle.use("ocr_rec")
    site.idle.load_failed("ocr_det", "no memory")
    site.idle.loaded("ocr")
    async with asyncio.timeout(60), supervisor.in_use("ocr_rec", MODELS, 60):
        unready = await supervisor.explain({"ocr_det": NOT_READY})
    assert unready == {"ocr_det": "could not be loaded again: no memory"}
    supervisor.close()


async def test_a_request_that_takes_long_holds_its_route_awake(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD", 0.01)
    supervisor = Supervisor(site.door.path)
    async with supervisor.in_use("ocr_rec", MODELS, 60):
        for _ in range(3):
            site.now += 400
            await until_used(site, site.used)
            assert site.idle.naps(lambda _model: True) == []
    supervisor.close()


async def test_after_a_promise_nobody_waits_for_an_answer(site: Site) -> None:
    supervisor = Supervisor(site.door.path)
    async with supervisor.in_use("ocr_rec", MODELS, 60):
        pass
    site.door.close()
    async with supervisor.in_use("ocr_rec", MODELS, 60):
        pass
    supervisor.close()


async def test_a_supervisor_that_is_late_is_asked_again_about_what_slept(site: Site) -> None:
    supervisor = Supervisor(site.door.path)
    site.sleep()
    await supervisor.states()
    site.door.close()
    began = asyncio.Event()

    async def one() -> None:
        async with supervisor.in_use("ocr_rec", MODELS, 60):
            began.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(one())
        await asyncio.sleep(0)
        site.door.open()
        await until_used(site)
        assert not began.is_set()
        for model in MODELS:
            site.idle.loaded(model)
    assert began.is_set()
    supervisor.close()


async def test_only_what_sleeps_or_wakes_is_excused(site: Site) -> None:
    supervisor = Supervisor(site.door.path)
    fault = {"ocr": NOT_READY}
    assert await supervisor.explain(fault) == fault, "somebody else unloaded it"
    site.sleep()
    assert await supervisor.explain({"ocr": NOT_READY, "other": NOT_READY}) == {"other": NOT_READY}
    away = {"ocr": "cannot reach Triton at http://triton: refused"}
    assert await supervisor.explain(away) == away
    site.idle.use("ocr_rec")
    assert await supervisor.explain(fault) == {}
    for model in MODELS:
        site.idle.loaded(model)
    assert await supervisor.explain(fault) == {}, "Triton was asked before"
    assert await supervisor.explain(fault) == fault
    supervisor.close()


async def test_without_one_nothing_is_asked(tmp_path: Path) -> None:
    for path in (None, tmp_path / NAME):
        supervisor = Supervisor(path)
        assert await supervisor.states() == States()
        assert await supervisor.explain({"ocr": NOT_READY}) == {"ocr": NOT_READY}
        async with asyncio.timeout(60), supervisor.in_use("ocr_rec", MODELS, 60):
            pass
        supervisor.close()
