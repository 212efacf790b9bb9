"""After an outage Immich is asked to run what is missing: the right queues, once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from catching_up import BUSY, KEY, STARTED, Immich, access, attend_until, attending, lose, said, serving
from mitmproxy import ctx
from stand_in_triton import CLIP_NAME, StandInTriton

from harness.program import eventually
from immich_triton.core import state_file
from immich_triton.core.observer import Reason, Refusal
from immich_triton.ml.catchup import own_port, start_missing
from immich_triton.ml.outages import PAUSES, Outages, moment
from immich_triton.triton.inference import Call, Unavailable, WrongWeights


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
        attending(triton, tmp_path, **access(immich, tmp_path)) as (
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


async def test_a_dead_process_is_well_enough_to_ask_for_photos_when_one_may_try(
    triton: StandInTriton, tmp_path: Path
) -> None:
    """With the breaker open and nobody there to try, what is missing would be missing for ever."""
    triton.behaviour["ocr"] = "dead process"
    async with (
        serving(Immich()) as immich,
        attending(triton, tmp_path, **access(immich, tmp_path), immich_deadline=1) as (
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
