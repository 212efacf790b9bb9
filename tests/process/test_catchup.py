"""After an outage Immich is asked to run what is missing: the right queues, once."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from gateway_process import GatewayProcess, kept, running_gateway
from mitmproxy import ctx
from mitmproxy.test import taddons
from recorder import Recorder, recording_upstream
from stand_in_triton import CLIP_NAME, StandInTriton, stand_in_triton, write_routes

from harness.program import eventually
from immich_triton.core import state_file
from immich_triton.core.observer import Reason, Refusal, RequestDone
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.ml.catchup import CatchUp, Pauses, own_port, start_missing
from immich_triton.ml.configuration import Configuration
from immich_triton.ml.outages import PAUSES, Outages, moment
from immich_triton.ml.service import Service
from immich_triton.triton.inference import Call, Unavailable, WrongWeights

KEY = "the-api-key"
STARTED = (200, '{"jobCounts":{}}')
BUSY = (400, '{"message":"Job is already running","error":"Bad Request","statusCode":400}')


@dataclass
class Immich:
    """The part of Immich's API that is asked; the observed answers of a 2.7.5."""

    url: str = ""
    answers: list[tuple[int, str]] = field(default_factory=lambda: [STARTED])
    asked: list[tuple[str, str, object]] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    """What happens before it answers."""

    @property
    def queues(self) -> list[str]:
        """The queues that were to be started, in order."""
        return [path.rsplit("/", 1)[1] for _, path, _ in self.asked]

    async def handle(self, request: web.Request) -> web.Response:
        """Answer, and keep what was asked."""
        self.asked.append((request.method, request.path, await request.json() if request.can_read_body else None))
        assert request.headers["x-api-key"] == KEY
        self.meanwhile()
        status, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        headers = {"Location": text} if status == 302 else {}
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")


@asynccontextmanager
async def serving(immich: Immich) -> AsyncIterator[Immich]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", immich.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    immich.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield immich
    finally:
        await runner.cleanup()


@contextmanager
def immich_server() -> Iterator[Immich]:
    immich, loop, started, stop = Immich(), asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def run() -> None:
        async with serving(immich):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield immich
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def immich() -> Iterator[Immich]:
    with immich_server() as server:
        yield server


@pytest.fixture
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


def break_down(triton: StandInTriton) -> None:
    triton.behaviour[""] = "503"
    triton.unready |= {"ocr_rec", "visual", "textual"}


def recover(triton: StandInTriton) -> None:
    triton.behaviour.clear()
    triton.unready.clear()


def routes(directory: Path) -> Path:
    """Return the routes there, written where there are none yet."""
    models = directory / "models"
    return models if models.exists() else write_routes(models)


def gateway(
    triton: StandInTriton, upstream: Recorder, immich: Immich, directory: Path
) -> AbstractContextManager[GatewayProcess]:
    return running_gateway(
        directory,
        models=routes(directory),
        triton_url=triton.url,
        upstream=upstream.url,
        immich_deadline=4,
        immich_query_deadline=4,
        immich_api_url=immich.url,
        immich_api_key=kept(directory, KEY),
    )


def ask_ocr(process: GatewayProcess) -> int:
    return predict(process.url, entries_for("ocr"), image=b"image").status


def test_an_outage_is_caught_up_on_once_also_over_restarts(
    triton: StandInTriton, upstream: Recorder, immich: Immich, tmp_path: Path
) -> None:
    with gateway(triton, upstream, immich, tmp_path) as process:
        assert ask_ocr(process) == 200
        break_down(triton)
        with ThreadPoolExecutor(4) as pool:
            # A query is lost to nobody but the person who asks again; a photo is.
            query = pool.submit(predict, process.url, entries_for("clip-text"), text="猫")
            assert set(pool.map(ask_ocr, [process] * 3)) == {503}
            assert query.result().status == 503
        assert immich.asked == []
        assert eventually(lambda: "ocr: to be caught up on" in process.log)
        assert "clip: to be caught up on" not in process.whole_log()
        process.process.kill()
        process.process.wait()
    # The start after the kill counts as an outage of all that is routed.
    with gateway(triton, upstream, immich, tmp_path) as process:
        assert predict(process.url, entries_for("clip"), image=b"image").status == 503
        assert immich.asked == []
        recover(triton)
        # With no mark left there is nothing that Immich could be asked for once more.
        assert eventually(lambda: len(immich.asked) >= 2 and Outages(process.state_dir).marks() == {}, 60)
        assert sorted(immich.queues) == ["ocr", "smartSearch"]
        assert {method for method, _, _ in immich.asked} == {"PUT"}
        assert [body for _, _, body in immich.asked] == [{"command": "start", "force": False}] * 2
        assert ask_ocr(process) == 200
        assert len(immich.asked) == 2
        log = process.whole_log()
        assert KEY not in log
        assert "ocr: photos that fail in a run of All are not found by Missing" in log


@asynccontextmanager
async def attending(
    triton: StandInTriton, tmp_path: Path, **options: object
) -> AsyncIterator[tuple[Service, CatchUp, Outages]]:
    """Give the addon without waiting times, inside a mitmproxy."""
    service = Service()
    configuration = Configuration(service)
    with taddons.context() as context:
        context.options.update(mode=["reverse:http://127.0.0.1:9"])
        context.master.addons.add(configuration)
        context.configure(
            configuration,
            immich_models=str(routes(tmp_path)),
            immich_state_dir=str(tmp_path / "state"),
            immich_triton_url=triton.url,
            **options,
        )
        yield service, CatchUp(service, Pauses(settle=0, busy=0, failed=0)), Outages(tmp_path / "state")
        service.close()
        closing = [task for task in asyncio.all_tasks() if task.get_name() == "close a client of Triton"]
        await asyncio.gather(*closing)


def access(immich: Immich, directory: Path) -> dict[str, str]:
    """Return the options by which the gateway may ask Immich."""
    return {"immich_api_url": immich.url, "immich_api_key": kept(directory, KEY)}


async def attend_until(catch_up: CatchUp, condition: Callable[[], bool]) -> bool:
    """Look after outages until *condition* holds: Triton may take too long to say that it is well."""
    for _ in range(20):
        await catch_up.attend()
        if condition():
            return True
    return False


def lose(
    service: Service,
    *tasks: str,
    status: int = 503,
    reason: Reason = "unavailable",
    image: bool = True,
    seconds: float = 1.0,
) -> None:
    """Have a request fail now that was sent so many seconds ago."""
    service.observers.request_done(RequestDone(tasks, "triton", image, status, reason, seconds))


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """Return the lines of the log in which the regular expression is found."""
    return [line for record in caplog.records if re.search(text, line := record.getMessage())]


@pytest.mark.parametrize(
    "answers",
    [[BUSY, BUSY, STARTED], [(500, "oops"), STARTED], [(401, '{"message":"Invalid API key"}'), STARTED]],
    ids=["already running", "an error", "a key that is made valid"],
)
async def test_immich_is_asked_again_until_it_starts(
    triton: StandInTriton, tmp_path: Path, answers: list[tuple[int, str]]
) -> None:
    async with (
        serving(Immich(answers=list(answers))) as immich,
        attending(triton, tmp_path, **access(immich, tmp_path)) as (
            service,
            catch_up,
            outages,
        ),
    ):
        lose(service, "ocr")
        assert await attend_until(catch_up, lambda: outages.marks() == {})
        assert immich.queues == ["ocr"] * len(answers)


async def test_a_login_page_behind_a_redirect_is_no_start() -> None:
    async with serving(Immich(answers=[(302, "/login"), STARTED])) as immich:
        answer, text = await start_missing(immich.url, KEY, "ocr")
    assert answer == "failed"
    assert "answered 302" in text
    assert immich.queues == ["ocr"]


async def test_a_photo_that_always_fails_is_no_endless_game(
    triton: StandInTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(Immich()) as immich,
        attending(triton, tmp_path, **access(immich, tmp_path)) as (
            service,
            catch_up,
            outages,
        ),
    ):
        lose(service, "ocr", status=500, reason="server_fault")
        assert await attend_until(catch_up, lambda: outages.marks() == {})
        for _ in range(5):  # it is missing again, and so fails again
            lose(service, "ocr", status=500, reason="server_fault", seconds=0.0)
            await catch_up.attend()
        assert immich.queues == ["ocr"]
        (owed,) = outages.owed()
        assert owed.due == outages._read().asked["ocr"][-1] + PAUSES[1]
        # It is no secret, and said once.
        waits = "ocr: photos sent since .* failed again after the last catch-up, so Immich is asked to run them at "
        assert await attend_until(catch_up, lambda: len(said(caplog, waits)) > 0)
        await catch_up.attend()
        (line,) = said(caplog, waits)
        assert f"{moment(owed.due)}; at once: in Immich click Administration, Job Queues, Missing for OCR" in line


async def test_after_ordinary_restarts_the_photos_of_an_outage_do_not_wait(
    triton: StandInTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Immich()) as immich:

        async def caught_up(outages: Outages) -> bool:
            return await asyncio.to_thread(eventually, lambda: outages.marks() == {}, 60)

        for restart in range(3):
            async with attending(triton, tmp_path, **access(immich, tmp_path)) as (service, catch_up, outages):
                catch_up.running()
                assert await caught_up(outages)
                assert sorted(immich.queues) == ["ocr"] * restart + ["smartSearch"] * restart
                assert said(caplog, "a run of All") == [], "no request had failed"
                if restart == 2:
                    immich.asked.clear()
                    lose(service, "ocr")
                    assert await caught_up(outages)
                    assert immich.queues == ["ocr"]
                ctx.master.should_exit.set()
                catch_up.done()


async def test_a_photo_that_ends_the_gateway_every_time_is_no_endless_game(
    triton: StandInTriton, tmp_path: Path
) -> None:
    """Such a run does not end in peace: what it leaves counts as photos that failed."""
    async with serving(Immich()) as immich:
        for crash in range(3):
            async with attending(triton, tmp_path, **access(immich, tmp_path)) as (_, catch_up, outages):
                outages.begin(own_port(), run=f"run {crash}, which crashed")
                catch_up.running()
                if crash == 0:
                    assert await asyncio.to_thread(eventually, lambda: outages.marks() == {}, 60)
                assert sorted(immich.queues) == ["ocr", "smartSearch"]
                assert [one.in_vain for one in outages.owed()] == ([1, 1] if crash else [])


async def test_a_restart_between_has_no_part_in_the_game(triton: StandInTriton, tmp_path: Path) -> None:
    async with (
        serving(Immich()) as immich,
        attending(triton, tmp_path, **access(immich, tmp_path)) as (service, catch_up, outages),
    ):
        for asked, restarts in enumerate((True, True, False, True), 1):
            if restarts:
                outages.mark(("ocr",))
            else:
                lose(service, "ocr", seconds=0.0)
            assert await attend_until(catch_up, lambda: outages.marks() == {})
            assert len(immich.asked) == asked


async def test_photos_that_are_refused_for_want_of_room_are_no_endless_game(
    triton: StandInTriton, tmp_path: Path
) -> None:
    async with (
        serving(Immich()) as immich,
        attending(triton, tmp_path, **access(immich, tmp_path)) as (service, catch_up, outages),
    ):
        service.observers.refused("no_room", 503, photo=True)
        assert await attend_until(catch_up, lambda: outages.marks() == {})
        catch_up._refused_at = 0.0  # as if a second had passed
        service.observers.refused("no_room", 503, photo=True)
        assert [one.in_vain for one in outages.owed()] == [1, 1]
        assert sorted(immich.queues) == ["ocr", "smartSearch"]


async def test_a_photo_that_fails_just_while_immich_is_asked_is_not_forgotten(
    triton: StandInTriton, tmp_path: Path
) -> None:
    async with (
        serving(Immich()) as immich,
        attending(triton, tmp_path, **access(immich, tmp_path)) as (service, catch_up, outages),
    ):
        lose(service, "ocr")
        immich.meanwhile = lambda: lose(service, "ocr", seconds=0.0)
        assert await attend_until(catch_up, lambda: immich.queues == ["ocr"])
        assert [(one.task, one.in_vain) for one in outages.owed()] == [("ocr", 1)]


async def test_a_queue_that_runs_already_is_said_once_with_what_its_run_may_cost(
    triton: StandInTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(Immich(answers=[BUSY, BUSY, BUSY, STARTED])) as immich,
        attending(triton, tmp_path, **access(immich, tmp_path)) as (service, catch_up, outages),
    ):
        lose(service, "ocr")
        assert await attend_until(catch_up, lambda: outages.marks() == {})
        assert len(immich.asked) == 4
    assert len(said(caplog, "ocr: Immich runs the queue ocr already; asked again every")) == 1
    assert len(said(caplog, "ocr: photos that fail in a run of All are not found by Missing.*reprocess --lost")) == 1


@pytest.mark.parametrize(("task", "warned"), [("ocr", 1), ("clip", 0)])
async def test_without_a_key_what_a_run_of_all_may_cost_is_said_too(
    triton: StandInTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture, task: str, warned: int
) -> None:
    async with attending(triton, tmp_path) as (service, catch_up, outages):
        lose(service, task)
        assert await attend_until(catch_up, lambda: outages.marks() == {})
    assert len(said(caplog, "in a run of All are not found by Missing")) == warned


async def test_what_could_not_be_written_is_written_later_as_the_failure_that_it_was(
    triton: StandInTriton, tmp_path: Path
) -> None:
    async with attending(triton, tmp_path) as (service, catch_up, outages):
        with state_file.exclusive(outages.path):
            service.observers.refused("draining", 503, photo=True)
            lose(service, "ocr")
        assert outages.marks() == {}
        catch_up._mark_again()
        assert {one.task: one.failed for one in outages.owed()} == {"ocr": True, "clip": False}


@pytest.mark.parametrize(
    ("status", "reason", "image"),
    [(200, "ok", True), (400, "bad_input", True), (503, "unavailable", False), (500, "client_gone", True)],
    ids=["an answer", "a bad image", "a query", "a client that is gone"],
)
async def test_what_is_no_loss_is_not_marked(
    triton: StandInTriton, tmp_path: Path, status: int, reason: Reason, *, image: bool
) -> None:
    async with attending(triton, tmp_path) as (service, _, outages):
        lose(service, "ocr", status=status, reason=reason, image=image)
        assert outages.marks() == {}


async def test_nothing_is_asked_while_a_model_is_missing(triton: StandInTriton, tmp_path: Path) -> None:
    async with (
        serving(Immich()) as immich,
        attending(triton, tmp_path, **access(immich, tmp_path)) as (
            service,
            catch_up,
            _,
        ),
    ):
        lose(service, "ocr", "clip")
        triton.unready.add("visual")
        assert await attend_until(catch_up, lambda: immich.queues == ["ocr"])
        await catch_up.attend()
        assert immich.queues == ["ocr"]
        triton.unready.clear()
        assert await attend_until(catch_up, lambda: immich.queues == ["ocr", "smartSearch"])


async def test_nothing_is_asked_while_triton_has_other_weights(triton: StandInTriton, tmp_path: Path) -> None:
    async with (
        serving(Immich()) as immich,
        attending(triton, tmp_path, immich_api_url=immich.url, immich_api_key=kept(tmp_path, KEY)) as (
            service,
            catch_up,
            outages,
        ),
    ):
        lose(service, "clip", reason="weights")
        assert outages.marks().keys() == {"clip"}
        route = service.table.find("clip", CLIP_NAME)
        assert route is not None
        service.doubts.add(route.pipeline("visual"), WrongWeights("another export"))
        for _ in range(3):
            await catch_up.attend()
        assert immich.queues == []
        service.doubts.settle(route.pipeline("visual"))
        assert await attend_until(catch_up, lambda: immich.queues == ["smartSearch"])


async def test_without_a_key_one_line_says_what_to_click(
    triton: StandInTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with attending(triton, tmp_path) as (service, catch_up, outages):
        lose(service, "ocr")
        lose(service, "clip")
        assert await attend_until(catch_up, lambda: outages.marks() == {})
        await catch_up.attend()
    lines = [record.getMessage() for record in caplog.records if "in Immich click" in record.getMessage()]
    assert len(lines) == 1
    assert "Job Queues, Missing for OCR, Smart Search" in lines[0]


@pytest.mark.parametrize(
    ("reason", "status", "photo"),
    [("connections", 0, True), ("draining", 503, True), ("draining", 503, False), ("too_large", 413, False)],
)
async def test_a_photo_that_was_refused_unread_is_caught_up_on(
    triton: StandInTriton, tmp_path: Path, reason: Refusal, status: int, *, photo: bool
) -> None:
    async with attending(triton, tmp_path) as (service, _, outages):
        service.observers.refused(reason, status, photo=photo)
        assert outages.marks().keys() == ({"clip", "ocr"} if photo else set())


def test_a_refused_connection_may_have_been_a_photo(triton: StandInTriton, upstream: Recorder, tmp_path: Path) -> None:
    models = write_routes(tmp_path / "models")
    with (
        running_gateway(
            tmp_path, models=models, triton_url=triton.url, upstream=upstream.url, immich_max_connections=1
        ) as gateway,
        contextlib.ExitStack() as clients,
    ):
        for _ in range(5):
            clients.enter_context(socket.create_connection(gateway.address, 60))
        assert eventually(lambda: "photos may have been refused (connections, not answered)" in gateway.log)
        assert Outages(gateway.state_dir).marks().keys() == {"clip", "ocr"}


async def test_a_dead_process_is_well_enough_to_ask_for_photos_when_one_may_try(
    triton: StandInTriton, tmp_path: Path
) -> None:
    """With the breaker open and nobody there to try, what is missing would be missing for ever."""
    triton.behaviour["ocr"] = "dead process"
    async with (
        serving(Immich()) as immich,
        attending(
            triton, tmp_path, immich_api_url=immich.url, immich_api_key=kept(tmp_path, KEY), immich_deadline=1
        ) as (
            service,
            catch_up,
            _,
        ),
    ):
        (route,) = (route for route in service.table.routes if route.task == "ocr")
        call = Call(route.pipelines[0], "IMAGE", b"image", ("BOXES",))
        with pytest.raises(Unavailable):
            await service.triton.infer(call, 0.5)
        lose(service, "ocr")
        breaker = service.triton.breaker(route.pipelines[0])
        assert breaker.state == "open"
        await catch_up.attend()
        assert immich.queues == []
        async with asyncio.timeout(60):
            while not breaker.passable:  # noqa: ASYNC110 - nobody would set an event
                await asyncio.sleep(0.05)
        assert await attend_until(catch_up, lambda: immich.queues == ["ocr"])
