"""Models are loaded and unloaded in the background, one thing at a time for each of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web
from background_loop import in_background

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.server import triton_control
from immich_triton.server.triton_control import ModelControl, Outcome


class Triton:
    """Answers when it is let; ``asked`` are the paths and keys in order."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.go = threading.Event()
        self.go.set()
        self.refuses: dict[str, web.Response] = {}

    async def handle(self, request: web.Request) -> web.Response:
        model, action = request.path.split("/")[-2:]
        self.asked.append((f"{action} {model}", request.headers.get("x-triton-key", "")))
        self.bodies.append(await request.read())
        await asyncio.to_thread(self.go.wait, 60)
        return self.refuses.get(action, web.Response())

    @property
    def actions(self) -> list[str]:
        return [action for action, _ in self.asked]


@pytest.fixture
def triton() -> Iterator[Triton]:
    triton = Triton()
    app = web.Application()
    app.router.add_post("/v2/repository/models/{tail:.*}", triton.handle)
    with in_background(app) as triton.url:
        yield triton
        triton.go.set()


@pytest.fixture(autouse=True)
def no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_control, "GAP_SECONDS", 0.0)


def outcomes(control: ModelControl, count: int) -> list[Outcome]:
    found: list[Outcome] = []

    def look() -> bool:
        found.extend(control.outcomes())
        return len(found) == count

    assert eventually(look), found
    return found


def test_what_is_asked_for_is_done_in_order_with_the_key(triton: Triton) -> None:
    control = ModelControl(triton.url, "k", at_a_time=1)
    assert control.ask("ocr", "unload", "load")
    assert outcomes(control, 1) == [Outcome("ocr", "", unloaded=True)]
    assert triton.asked == [("unload ocr", "k"), ("load ocr", "k")]
    control.close()


def test_a_model_may_be_loaded_with_another_config_than_its_files(triton: Triton) -> None:
    control = ModelControl(triton.url, "", at_a_time=1, config={"ocr": '{"name": "ocr"}'}.get)
    control.ask("ocr", "unload", "load")
    outcomes(control, 1)
    control.ask("faces", "load")
    outcomes(control, 1)
    assert [json.loads(body) for body in triton.bodies] == [{}, {"parameters": {"config": '{"name": "ocr"}'}}, {}]
    control.close()


def test_a_model_to_which_something_is_done_is_left_alone(triton: Triton) -> None:
    control = ModelControl(triton.url, "", at_a_time=1)
    triton.go.clear()
    assert control.ask("ocr", "load")
    assert not control.ask("ocr", "unload")
    triton.go.set()
    assert outcomes(control, 1) == [Outcome("ocr", "", unloaded=False)]
    assert control.ask("ocr", "unload")
    outcomes(control, 1)
    assert triton.asked == [("load ocr", ""), ("unload ocr", "")]
    control.close()


def test_what_is_urgent_overtakes(triton: Triton) -> None:
    control = ModelControl(triton.url, "", at_a_time=1)
    triton.go.clear()
    control.ask("first", "load", urgent=False)
    assert eventually(lambda: triton.actions == ["load first"])
    for model in ("second", "third"):
        control.ask(model, "load", urgent=False)
    control.ask("dead", "load")
    triton.go.set()
    assert [done.model for done in outcomes(control, 4)] == ["first", "dead", "second", "third"]
    control.close()


def test_what_failed_says_why_and_how_far_it_came(triton: Triton) -> None:
    control = ModelControl(triton.url, "", at_a_time=1)
    triton.refuses["load"] = web.json_response({"error": "Internal: no memory\n\nAt:\n  model.py"}, status=400)
    control.ask("ocr", "unload", "load")
    assert outcomes(control, 1) == [Outcome("ocr", "no memory", unloaded=True)]
    triton.refuses = {"unload": web.Response(status=500, text="<html>")}
    control.ask("ocr", "unload", "load")
    assert outcomes(control, 1) == [Outcome("ocr", "HTTP Error 500: Internal Server Error", unloaded=False)]
    assert triton.actions == ["unload ocr", "load ocr", "unload ocr"], "after a failure nothing more is done"
    control.close()


def test_a_server_that_is_gone_costs_no_thread() -> None:
    control = ModelControl(f"http://127.0.0.1:{free_ports(1)[0]}", "", at_a_time=1)
    for _ in range(2):
        assert control.ask("ocr", "load")
        (done,) = outcomes(control, 1)
        assert "refused" in done.error
    control.close()


def test_its_threads_end_when_all_is_done(triton: Triton) -> None:
    before = set(threading.enumerate())
    control = ModelControl(triton.url, "", at_a_time=2)
    control.ask("ocr", "load")
    control.close()
    outcomes(control, 1)
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("model control"):
            thread.join(60)
            assert not thread.is_alive()
