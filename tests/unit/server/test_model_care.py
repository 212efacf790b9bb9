"""What a running Triton does not do by itself. Shell scripts stand for its stubs, a small server for its API."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from background_loop import in_background
from small_models import write_model, write_ocr_route

from harness.program import eventually
from immich_triton.server import processes, triton_control
from immich_triton.server.idle import Idle
from immich_triton.server.model_care import AGAIN_SECONDS, LOOK_SECONDS, Caretaker
from immich_triton.server.pid_file import kill_session
from immich_triton.server.triton_control import ModelControl
from immich_triton.server.triton_models import RepositoryWatch
from immich_triton.server.triton_stubs import LINGER_SECONDS, StubWatch

HUNG = 10.0
LEAVE = 30.0
STAY = "while :; do sleep 600; done"


class Triton:
    """Takes what it is asked to do; what is in ``broken`` cannot be loaded."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: set[str] = set()

    async def handle(self, request: web.Request) -> web.Response:
        model, action = request.path.split("/")[-2:]
        self.asked.append(f"{action} {model}")
        if action == "load" and model in self.broken:
            return web.json_response({"error": "no memory"}, status=400)
        return web.Response()


class Site:
    """A caretaker over the model ``echo``, whose clock is set by hand."""

    def __init__(self, directory: Path, triton: Triton, url: str) -> None:
        self.now = 100.0
        self.said: list[str] = []
        self.triton = triton
        self.models = directory / "models"
        write_ocr_route(write_model(self.models, "echo", code=STAY))
        self._stubs = StubWatch(os.getpid(), self.models, HUNG, self._clock)
        self._control = ModelControl(url, "", at_a_time=1)
        repository = RepositoryWatch(self.models, only_routed=False)
        self.idle = Idle(10, self._clock)
        self.idle.follow(repository.routes())
        self.care = Caretaker(self._stubs, repository, self._control, self.said.append, LEAVE, self._clock, self.idle)
        self._running: list[subprocess.Popen[bytes]] = []

    def _clock(self) -> float:
        return self.now

    def start_stub(self) -> int:
        """Run a process with the command line of a stub of ``echo``; return its number once it is seen."""
        script = str(self.models / "echo/1/model.py")
        arguments = ["sh", script, "region", "1", "1", str(os.getpid()), "backend", "336", "echo_0_0", "DEFAULT"]
        process = subprocess.Popen(arguments, start_new_session=True)
        self._running.append(process)
        assert eventually(lambda: process.pid in self._seen())
        return process.pid

    def _seen(self) -> set[int]:
        self._stubs.look()
        return {stub.pid for stub in self._stubs.of("echo")}

    def live(self, seconds: float = LOOK_SECONDS, *, healthy: bool = True) -> None:
        """Let time pass, and the caretaker look."""
        self.now += seconds
        self.care.poll(lambda _model: healthy)

    def kill(self, pid: int) -> None:
        """Kill a stub, and let as much time pass as one that ends in order may take."""
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: processes.state(pid) == "Z")
        self.live()
        self.live(LINGER_SECONDS)

    def is_told(self, *asked: str) -> None:
        """Wait until Triton was asked for this, in this order, and the caretaker knows what became of it."""
        assert eventually(lambda: len(self.triton.asked) >= len(asked)), self.triton.asked
        assert eventually(self._nothing_is_pending)
        assert self.triton.asked == list(asked)
        self.triton.asked.clear()

    def _nothing_is_pending(self) -> bool:
        self.care.poll(lambda _model: True)  # without a step of the clock it takes outcomes only
        return not self._control._pending

    def end(self) -> None:
        self.care.close()
        for process in self._running:
            kill_session(process.pid)
            process.wait()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(triton_control, "GAP_SECONDS", 0.0)
    triton = Triton()
    app = web.Application()
    app.router.add_post("/v2/repository/models/{tail:.*}", triton.handle)
    with in_background(app) as url:
        site = Site(tmp_path, triton, url)
        yield site
        site.end()


def test_models_are_loaded_in_order_and_those_that_cannot_be_have_a_reason(site: Site) -> None:
    site.triton.broken = {"net"}
    site.care.load(["net", "echo"])
    assert site.care.starting == {"net", "echo"}
    site.is_told("load net", "load echo")
    assert (site.care.starting, site.care.errors) == (set(), {"net": "no memory"})
    site.live(2 * AGAIN_SECONDS[-1])
    assert site.triton.asked == [], "what crashes while it loads would do so for ever"


def test_a_dead_process_is_replaced(site: Site) -> None:
    site.kill(site.start_stub())
    site.is_told("unload echo", "load echo")
    assert site.said == ["a process of model echo died (out of memory? see dmesg); loading the model again"]
    site.live()
    assert site.triton.asked == [], "once"


def test_one_of_a_model_that_was_never_loaded_is_not(site: Site) -> None:
    pid = site.start_stub()
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: processes.state(pid) == "Z")
    for _ in range(3):
        site.live(LINGER_SECONDS, healthy=False)
    assert (site.triton.asked, site.said) == ([], [])


def test_a_process_that_hangs_is_ended_and_replaced(site: Site) -> None:
    pid = site.start_stub()
    for _ in range(3):
        site.care.complain("echo_0_0")
        site.live(HUNG / 2)
    assert site.said[0] == f"process {pid} of model echo is stopped or does not answer; ending it"
    assert eventually(lambda: processes.state(pid) == "Z")
    site.live()
    site.is_told("unload echo", "load echo")


def test_a_lack_of_memory_may_last(site: Site) -> None:
    site.triton.broken = {"echo"}
    site.kill(site.start_stub())
    site.is_told("unload echo", "load echo")
    for pause in (*AGAIN_SECONDS, AGAIN_SECONDS[-1]):
        assert site.said[-1] == f"model echo could not be loaded again; next attempt in {pause:g} s"
        site.live(pause - 0.5)
        assert site.triton.asked == []
        site.live()
        site.is_told("load echo")
    site.triton.broken.clear()
    site.live(AGAIN_SECONDS[-1])
    site.is_told("load echo")
    site.live(10 * AGAIN_SECONDS[-1])
    assert site.triton.asked == [], "it is well again"


def test_what_serves_on_after_an_unload_is_ended_in_the_end(site: Site) -> None:
    dead, other = site.start_stub(), site.start_stub()
    site.kill(dead)
    site.is_told("unload echo", "load echo")
    fresh = site.start_stub()
    site.live(LEAVE - 1)
    assert processes.state(other) != "Z", "it may still have requests"
    site.live(2)
    assert eventually(lambda: processes.state(other) == "Z")
    assert site.said[-1] == f"process {other} stayed when model echo was unloaded; ending it"
    assert processes.state(fresh) != "Z"
    site.live(LINGER_SECONDS)
    site.live(LINGER_SECONDS)
    assert site.triton.asked == [], "it was us"


def test_files_that_came_and_went_are_followed(site: Site) -> None:
    write_model(site.models, "fresh")
    site.live()
    assert site.triton.asked == [], "it may be half a model"
    site.live()
    site.is_told("load fresh")
    shutil.rmtree(site.models / "fresh")
    site.live()
    site.live()
    site.is_told("unload fresh")
    assert site.said == [
        "the files of model fresh changed; loading it",
        "the files of model fresh are gone; unloading it",
    ]


def test_it_looks_once_a_second(site: Site) -> None:
    site.live()
    write_model(site.models, "fresh")
    for _ in range(3):
        site.live(LOOK_SECONDS / 4)
    site.live(LOOK_SECONDS / 4)
    assert (site.triton.asked, site.said) == ([], []), "that was the first look at it"


@pytest.fixture
def sleeping(site: Site) -> Site:
    """Return one that fell asleep after ten minutes."""
    site.live(599)
    assert site.triton.asked == []
    site.live()
    site.is_told("unload echo")
    assert site.said == ["nobody asked for echo in 10 minutes; unloading echo"]
    site.said.clear()
    return site


def test_what_nobody_asks_for_is_unloaded_and_loaded_again_for_who_does(sleeping: Site) -> None:
    for _ in range(3):
        sleeping.live()
    assert sleeping.triton.asked == []
    sleeping.idle.use("echo")
    sleeping.idle.use("echo")
    sleeping.live(0)
    sleeping.is_told("load echo")
    assert sleeping.said == ["somebody asks for echo; loading its models again", "model echo is awake after 0.0 s"]
    assert sleeping.idle.states().models == {"echo": "ready"}


def test_who_asks_while_it_is_unloaded_gets_it_loaded_afterwards(site: Site) -> None:
    site.live(600)  # its outcome is not taken yet
    site.idle.use("echo")

    def is_asked_for_both() -> bool:
        site.live(0)
        return len(site.triton.asked) == 2

    assert eventually(is_asked_for_both)
    site.is_told("unload echo", "load echo")
    assert site.idle.states().models == {"echo": "ready"}


def test_one_that_cannot_be_loaded_when_it_is_asked_for_is_tried_again(sleeping: Site) -> None:
    sleeping.triton.broken = {"echo"}
    sleeping.idle.use("echo")
    sleeping.live(0)
    sleeping.is_told("load echo")
    assert sleeping.idle.states().reasons == {"echo": "no memory"}
    sleeping.live(AGAIN_SECONDS[0] - 1)
    assert sleeping.triton.asked == []
    sleeping.triton.broken = set()
    sleeping.live(1)
    sleeping.is_told("load echo")
    assert sleeping.idle.states().models == {"echo": "ready"}


def test_a_process_that_stays_when_its_model_falls_asleep_is_ended(site: Site) -> None:
    pid = site.start_stub()
    site.live(600)
    site.is_told("unload echo")
    site.live(LEAVE)
    assert eventually(lambda: processes.state(pid) in ("Z", None))
    assert site.said[-1] == f"process {pid} stayed when model echo was unloaded; ending it"
    site.live(LINGER_SECONDS)
    site.live()
    assert site.triton.asked == [], "it did not die: nobody loads the model for that"


def test_one_whose_process_died_does_not_fall_asleep_before_it_is_well(site: Site) -> None:
    site.triton.broken = {"echo"}
    site.kill(site.start_stub())
    site.is_told("unload echo", "load echo")
    site.live(AGAIN_SECONDS[0] - 1)
    site.now += 600
    site.care.poll(lambda _model: True)
    site.is_told("load echo")
    assert site.idle.states().models["echo"] != "asleep"


def test_new_files_of_a_model_that_sleeps_are_loaded_when_it_wakes(sleeping: Site) -> None:
    (sleeping.models / "echo/1/model.py").write_text(f"# new\n{STAY}")
    for _ in range(3):
        sleeping.live()
    assert sleeping.triton.asked == []
    assert sleeping.said == ["the files of model echo changed; it sleeps, and will be loaded with them"]
    sleeping.idle.use("echo")
    sleeping.live(0)
    sleeping.is_told("load echo")


def test_a_model_that_is_removed_while_it_sleeps_is_not_asked_for(sleeping: Site) -> None:
    shutil.rmtree(sleeping.models / "echo")
    for _ in range(3):
        sleeping.live()
    sleeping.is_told("unload echo")
    for _ in range(3):
        sleeping.live()
    assert sleeping.triton.asked == []
    assert sleeping.idle.states().models == {}
