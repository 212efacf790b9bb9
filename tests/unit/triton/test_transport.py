"""One exchange with Triton over HTTP, against a stand-in that misbehaves on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web
from background_loop import in_background
from stand_in_triton import FINGERPRINT, StandInTriton, stand_in_triton

from harness.ports import free_ports
from immich_triton.core.observer import FaultKind
from immich_triton.triton import weights
from immich_triton.triton.inference import BadInput, Call, Refused, ServerFault, WrongWeights
from immich_triton.triton.pipelines import Pipeline
from immich_triton.triton.transport import NOT_READY, UNREACHABLE, Capacity, Transport

OCR = Call(Pipeline("ocr", ("detection",), ("ocr_det",)), "IMAGE", b"image", ("TEXTS", "IMAGE_SIZE"))
CLIP = Call(Pipeline("clip_text", ("textual",), ()), "TEXT", b"my diary", ("EMBEDDING", weights.OUTPUT))


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture(autouse=True)
def well(triton: StandInTriton) -> None:
    triton.behaviour.clear()
    triton.unready.clear()
    triton.config = {"max_batch_size": 1, "instance_group": [{"count": 1}]}


@pytest.fixture
async def transport(triton: StandInTriton) -> AsyncIterator[Transport]:
    transport = Transport(triton.url)
    yield transport
    await transport.close()


@pytest.fixture
async def nowhere() -> AsyncIterator[Transport]:
    transport = Transport(f"http://127.0.0.1:{free_ports(1)[0]}")
    yield transport
    await transport.close()


async def test_outputs_come_as_arrays(transport: Transport) -> None:
    answer = await transport.infer(OCR)
    assert answer["TEXTS"].tolist() == [["text"]]
    assert answer["IMAGE_SIZE"].tolist() == [[48, 64]]
    assert (await transport.infer(CLIP))[weights.OUTPUT].tolist() == [[FINGERPRINT]]


@pytest.mark.parametrize(
    ("behaviour", "kind", "why"),
    [
        ("500", "status", "ocr failed with status 500: made to fail with 500"),
        ("503", "busy", "ocr failed with status 503"),
        ("dead process", "process", "is not healthy"),
        ("reset", "broken", "the connection to .* broke"),
        ("truncated", "broken", "the connection to .* broke"),
        ("empty", "garbage", "ocr answered without TEXTS, IMAGE_SIZE"),
        ("error in a 200", "garbage", "ocr answered "),
        ("not json", "garbage", "ocr answered what is no inference response"),
        ("lying shape", "garbage", "output TEXTS cannot be read"),
        ("truncated binary", "garbage", "output .* cannot be read|no inference response"),
    ],
)
async def test_what_went_wrong_has_a_kind(
    transport: Transport, triton: StandInTriton, behaviour: str, kind: FaultKind, why: str
) -> None:
    triton.behaviour["ocr"] = behaviour
    with pytest.raises(ServerFault, match=why) as caught:
        await transport.infer(OCR)
    assert caught.value.kind == kind


async def test_nobody_there_has_a_kind_of_its_own(nowhere: Transport) -> None:
    with pytest.raises(ServerFault, match=f"cannot connect to {nowhere.url}: .") as caught:
        await nowhere.infer(OCR)
    assert caught.value.kind == "unreachable"


@pytest.mark.parametrize("behaviour", ["no proof", "older pipeline"])
async def test_an_answer_without_proof_of_its_weights_is_none(
    transport: Transport, triton: StandInTriton, behaviour: str
) -> None:
    triton.behaviour["clip_text"] = behaviour
    with pytest.raises(WrongWeights, match="does not say which weights it answers with"):
        await transport.infer(CLIP)


async def test_a_key_that_is_not_taken_is_no_fault_of_the_request(triton: StandInTriton) -> None:
    triton.behaviour["ocr"] = "403"
    for key, why in (("", "wants a key and the gateway has none"), ("k", "refuses our key")):
        transport = Transport(triton.url, key=key)
        with pytest.raises(Refused, match=f"{why}: set immich_triton_key"):
            await transport.infer(OCR)
        await transport.close()


@pytest.fixture(scope="module")
def saying() -> Iterator[str]:
    """Give a server that says in Triton's words what the first segment of the path says, to whatever is asked."""
    words = {
        "bad": (400, "in ensemble, failed: ValueError: bad input: it is no image"),
        "stale": (500, f"clip_text {weights.STALE}"),
        "quoting": (500, "cannot tokenize 'my diary'"),
        "locked": (401, "wants a key"),
        "forbidden": (404, "no such path here"),
        "failing": (502, "bad gateway"),
    }

    async def answer(request: web.Request) -> web.Response:
        if request.match_info["word"] == "list":
            return web.json_response([])
        status, text = words[request.match_info["word"]]
        return web.json_response({"error": text}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{word}/{tail:.*}", answer)
    with in_background(app) as url:
        yield url


@pytest.mark.parametrize(
    ("word", "error", "why"),
    [
        ("bad", BadInput, "^it is no image$"),
        ("stale", WrongWeights, "whose files an export has replaced"),
        ("quoting", ServerFault, "failed with status 500"),
    ],
)
async def test_an_error_of_triton_is_told_from_its_words(
    saying: str, word: str, error: type[Exception], why: str
) -> None:
    transport = Transport(f"{saying}/{word}")
    with pytest.raises(error, match=why) as caught:
        await transport.infer(CLIP)
    assert "diary" not in str(caught.value), "a query is nobody's business"
    await transport.close()


async def test_readiness_has_a_reason(transport: Transport, triton: StandInTriton, nowhere: Transport) -> None:
    triton.unready.add("ocr_det")
    assert await transport.why_not_ready("ocr", 60) == ""
    assert await transport.why_not_ready("ocr_det", 60) == NOT_READY
    assert (await nowhere.why_not_ready("ocr", 60)).startswith(f"{UNREACHABLE} at {nowhere.url}: ")
    triton.behaviour[""] = "hang"
    assert await transport.why_not_ready("ocr", 0.01) == f"Triton at {triton.url} did not answer within 0.01 s"


async def test_a_server_that_answers_is_live(transport: Transport, nowhere: Transport) -> None:
    assert await transport.is_live(60)
    assert not await nowhere.is_live(60)


@pytest.mark.parametrize(
    ("word", "reason"),
    [("list", ""), ("forbidden", ""), ("locked", "wants a key and the gateway has none"), ("failing", "answered 502")],
)
async def test_whether_the_key_is_taken_is_asked_of_what_needs_one(saying: str, word: str, reason: str) -> None:
    transport = Transport(f"{saying}/{word}")
    found = await transport.why_refused(60)
    assert (reason in found, bool(found)) == (True, bool(reason))
    await transport.close()


async def test_nobody_there_does_not_take_it(nowhere: Transport) -> None:
    assert (await nowhere.why_refused(60)).startswith(UNREACHABLE)


async def test_how_much_a_pipeline_can_work_on(transport: Transport, triton: StandInTriton, nowhere: Transport) -> None:
    triton.config = {"max_batch_size": 8, "instance_group": [{"count": 2, "gpus": [0, 1]}, {"count": 3}]}
    capacity = await transport.capacity("ocr", 60)
    assert capacity == Capacity(processes=7, batch=8)
    assert (capacity.calls, capacity.large) == (56, 2)
    assert Capacity(processes=1, batch=1).large == 1, "a large image must go through as well"
    triton.config = {"max_batch_size": 0, "instance_group": []}
    assert await transport.capacity("ocr", 60) == Capacity(processes=0, batch=1)
    triton.config = {}
    assert await transport.capacity("ocr", 60) is None
    assert await nowhere.capacity("ocr", 60) is None
