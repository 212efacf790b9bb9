"""Which processes the supervisor takes for a model's, and when for dead or stuck. Shell scripts stand for the stubs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.program import eventually
from immich_triton.server import processes
from immich_triton.server.own_time import LONGEST_STEP, OwnTime
from immich_triton.server.pid_file import kill_session
from immich_triton.server.triton_stubs import LINGER_SECONDS, StubWatch

HUNG = 10.0
STAY = "while :; do sleep 1; done"


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


StartStub = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartStub]:
    """Give ``start(instance, code)``: run a process with the command line of a stub of the model ``echo``."""
    running: list[subprocess.Popen[bytes]] = []
    script = tmp_path / "echo/1/model.py"
    script.parent.mkdir(parents=True)

    def begin(instance: str = "echo_0_0", code: str = STAY) -> int:
        script.write_text(f"{code}\n")
        arguments = ["sh", str(script), "region", "1", "1", str(os.getpid()), "backend", "336", instance, "DEFAULT"]
        running.append(subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.PIPE))
        return running[-1].pid

    yield begin
    for process in running:
        kill_session(process.pid)
        process.wait()
        assert process.stdout
        process.stdout.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(tmp_path: Path, clock: Clock) -> StubWatch:
    return StubWatch(os.getpid(), tmp_path, HUNG, clock)


def seen(watch: StubWatch, count: int = 1) -> bool:
    def look() -> bool:
        watch.look()
        return len(watch.of("echo")) == count

    return eventually(look)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: processes.state(pid) == "T")


def test_a_stub_that_is_killed_is_told_once(start: StartStub, watch: StubWatch, clock: Clock) -> None:
    pid = start()
    assert seen(watch)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: processes.state(pid) == "Z")
    watch.look()
    assert not watch.died()  # one that ends in order looks the same for a moment
    clock.now += LINGER_SECONDS
    assert {(stub.pid, stub.model, stub.instance) for stub in watch.died()} == {(pid, "echo", "echo_0_0")}
    watch.look()
    assert not watch.died()
    assert not watch.of("echo")


def test_a_stub_that_is_stopped_for_long_hangs(start: StartStub, watch: StubWatch, clock: Clock) -> None:
    pid, other = start("echo_0_0"), start("echo_0_1")
    assert seen(watch, 2)
    stop(pid)
    watch.look()
    clock.now += HUNG - 1
    watch.look()
    assert not watch.hung()
    clock.now += 1
    (stub,) = watch.hung()
    assert stub.pid == pid
    watch.end(stub)
    assert eventually(lambda: processes.state(pid) == "Z")
    clock.now += LINGER_SECONDS
    watch.look()
    assert not watch.died()  # it was us
    assert {stub.pid for stub in watch.of("echo")} == {other}


def test_a_stub_that_goes_on_in_time_does_not_hang(start: StartStub, watch: StubWatch, clock: Clock) -> None:
    pid = start()
    assert seen(watch)
    for _ in range(3):
        stop(pid)
        watch.look()
        clock.now += HUNG - 1
        assert not watch.hung()
        os.kill(pid, signal.SIGCONT)
        assert eventually(lambda: processes.state(pid) != "T")
        watch.look()
    clock.now += HUNG
    assert not watch.hung()


def test_a_container_that_was_frozen_has_no_stub_that_hangs(tmp_path: Path, start: StartStub) -> None:
    wall = Clock()
    watch = StubWatch(os.getpid(), tmp_path, HUNG, OwnTime(wall))
    pid = start()
    assert seen(watch)
    stop(pid)
    watch.look()
    wall.now += 3600  # we were frozen as well, and go on first
    watch.look()
    assert not watch.hung()


def test_time_in_which_we_did_not_run_is_not_counted() -> None:
    wall = Clock(100.0)
    own = OwnTime(wall)
    for step in (0.1, 0.4, 3600.0, 0.5):
        wall.now += step
        own()
    assert own() == pytest.approx(0.1 + 0.4 + LONGEST_STEP + 0.5)


def test_a_stub_that_triton_calls_unhealthy_again_and_again_hangs(
    start: StartStub, watch: StubWatch, clock: Clock
) -> None:
    start("echo_0_0")
    other = start("echo_0_1")
    assert seen(watch, 2)
    watch.complain("nobody_0_0")
    watch.complain("echo_0_1")
    clock.now += HUNG - 1
    watch.complain("echo_0_1")
    assert not watch.hung()
    clock.now += 1
    watch.complain("echo_0_1")
    assert {stub.pid for stub in watch.hung()} == {other}


def test_hiccups_long_apart_are_no_hang(start: StartStub, watch: StubWatch, clock: Clock) -> None:
    start()
    assert seen(watch)
    for _ in range(5):
        watch.complain("echo_0_0")
        clock.now += 60
    assert not watch.hung()


def test_what_a_stub_starts_is_no_stub_and_ends_with_it(start: StartStub, watch: StubWatch, tmp_path: Path) -> None:
    pid = start(code=f"setsid sh -c '{STAY}' & {STAY}")
    assert seen(watch)
    assert eventually(lambda: len(processes.tree(pid)) >= 3)
    below = processes.tree(pid)
    watch.look()
    (stub,) = watch.of("echo")
    assert stub.pid == pid
    watch.end(stub)
    assert eventually(lambda: not any(processes.arguments(one) for one in below))
