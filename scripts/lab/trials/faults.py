"""The faults, one trial each: what is broken, under which load, and what is expected all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.program import eventually
from immich_triton.server import processes
from trials.load import CUT, TIMEOUT, Verdict, count, describe
from trials.long_screenshots import DEADLINE as LONG_DEADLINE
from trials.long_screenshots import long_screenshots
from trials.model_faults import broken, garbage, unload
from trials.poison_faults import poison
from trials.process_faults import answered, freeze_one, kill, only
from trials.world import World

GAUGES: Final = ("requests_in_flight", "requests_waiting", "triton_calls", "held_bytes")


def freeze(world: World) -> Verdict:
    """Stop Triton without ending it."""
    verdict, pid = Verdict(), world.site.triton_pid
    with world.load() as clients:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(20 * world.pace)
        os.kill(pid, signal.SIGCONT)
        thawed = time.monotonic()
        back = eventually(lambda: answered(clients, world, thawed), 30)
    slowest = max((one.seconds for one in clients.since()), default=0.0)
    only(verdict, world, clients.since(), {200, 503})
    verdict.expect(slowest < world.deadline + 2, f"a request took {slowest:.1f} s, deadline {world.deadline} s")
    verdict.expect(back, "no answer within 30 s after SIGCONT")
    verdict.expect(world.site.triton_pid == pid, "Triton was restarted")
    verdict.say(f"slowest request {slowest:.1f} s, deadline {world.deadline:g} s")
    return verdict


def upstream(world: World) -> Verdict:
    """Let the stock ML misbehave."""
    verdict = Verdict()
    for mood, expected in (("resetting", 502), ("hanging", 504)):
        world.stock.mood = mood
        with world.load(*world.routed, "pass") as clients:
            time.sleep(8 * world.pace)
        world.stock.mood = "well"
        passed = [one for one in clients.since() if one.kind == "pass"]
        routed = [one for one in clients.since() if one.kind in world.routed]
        verdict.expect({one.status for one in passed} == {expected}, f"{mood}: passing {describe(count(passed))}")
        verdict.expect({one.status for one in routed} == {200}, f"{mood}: routed {describe(count(routed))}")
        verdict.say(f"{mood}: passing {describe(count(passed))}, routed {describe(count(routed))}")
    return verdict


def drip(world: World) -> Verdict:
    """Send as slowly as one can."""
    verdict, stop = Verdict(), threading.Event()
    name = "clip-text" if "clip-text" in world.kinds else "ocr"

    def latency() -> float:
        return statistics.median(world.one(name).seconds for _ in range(40))

    quiet, sockets = latency(), []
    for _ in range(200):
        client = _connect(world)
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
        sockets.append(client)

    def send() -> None:
        while not stop.wait(1):
            for client in sockets:
                with contextlib.suppress(OSError):
                    client.send(b"x")

    thread = threading.Thread(target=send)
    thread.start()
    busy = latency()
    stop.set()
    thread.join()
    for client in sockets:
        client.close()
    verdict.expect(busy / quiet < 2, f"{busy / quiet:.2f} times slower")
    verdict.say(f"{name}: median {1000 * quiet:.0f} ms alone, {1000 * busy:.0f} ms beside them ({busy / quiet:.2f}x)")
    return verdict


def vanish(world: World) -> Verdict:
    """Send half a request, or a whole one, and go away."""
    verdict, memory = Verdict(), []
    body = world.kinds["ocr"].body
    head = (
        f"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: {world.kinds['ocr'].content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(2):
        # The first half is the warm-up.
        for index in range(500):
            with _connect(world) as client:
                client.sendall(head + (body if index % 2 else body[: len(body) // 2]))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        verdict.expect(eventually(lambda: _idle(world), 120), f"gauges: {_gauges(world)}")
        memory.append(processes.memory(world.site.gateway_pid).rss)
    growth = memory[1] - memory[0]
    verdict.expect(growth < 6 << 20, f"memory grew by {growth / 1e6:.0f} MB in the second half")
    verdict.say(f"gauges {sum(_gauges(world).values()):g}, memory {growth / 1e6:+.1f} MB in the second half")
    return verdict


def outage(world: World) -> Verdict:
    """Keep Triton away so long that photos are lost."""
    verdict, before = Verdict(), len(world.queues.started)
    with world.load("ocr", "pass") as clients:
        # A Triton that hangs for so long would be ended and started again by the supervisor.
        world.control("ocr_rec", "unload")
        time.sleep(max(60 * world.pace, world.deadline + 2))
        world.control("ocr_rec", "load")
        eventually(lambda: len(world.queues.started) > before, 180)
        time.sleep(5)  # for what must not come
    started = world.queues.started[before:]
    verdict.expect(started == ["PUT ocr force=False"], f"asked: {started}")
    verdict.expect(any(one.status == 503 for one in clients.since()), "nothing was lost: the outage was too short")
    verdict.say(f"asked: {', '.join(started)}")
    return verdict


def stop(world: World, number: signal.Signals, *, group: bool) -> Verdict:
    """Stop everything under load: nobody is cut off, exit code 0."""
    verdict = Verdict()
    with world.load() as clients:
        code = world.site.stop(number, group=group)
    outcomes = clients.since()
    cut = [one for one in outcomes if one.status in (CUT, TIMEOUT)]
    verdict.expect(code == 0, f"exit code {code}")
    verdict.expect(not cut, f"{len(cut)} requests cut off: {describe(count(cut, lambda one: one.kind))}")
    verdict.say(f"exit code {code}; {describe(count(outcomes))}")
    return verdict


def terminate(world: World) -> Verdict:
    """Stop everything as a service manager does."""
    return stop(world, signal.SIGTERM, group=False)


def interrupt(world: World) -> Verdict:
    """Stop everything as a person at a terminal does."""
    return stop(world, signal.SIGINT, group=True)


@dataclass(frozen=True)
class Trial:
    """A fault, what is expected all the same, and how to try it.

    With a *deadline* (seconds; 0 for that of the other trials) it gets an installation of its own.
    """

    fault: str
    expected: str
    run: Callable[[World], Verdict]
    deadline: int = 0


TRIALS: Final[Mapping[str, Trial]] = {
    # First: a catch-up after another trial would put this one off, as it is meant to.
    "outage": Trial("outage of 60 s with catch-up", "the right queue is started once, nothing else", outage),
    "kill": Trial(
        "kill -9 Triton, three times",
        "every request 200 or 503; 0 CLIP upstream; all answered again 10 s after all models are ready",
        kill,
    ),
    "freeze-one": Trial(
        "freeze one process: SIGSTOP one of ocr_rec's",
        "every request 200, or 503 at its deadline, never 500; the process is replaced without help",
        freeze_one,
    ),
    "freeze": Trial("SIGSTOP Triton for 20 s", "nobody waits beyond the deadline; recovery without restart", freeze),
    "unload": Trial("one model unloaded", "only its task is 503; the others are answered", unload),
    "broken": Trial("one model fails to load", "only its task is 503; the others are answered", broken),
    "garbage": Trial("Triton answers NaN, wrong length, nothing", "5xx to Immich, never a wrong vector", garbage),
    "poison": Trial("images that cost too much", "400; beside them p95 at most 3 x; at most 2 reloads", poison),
    "upstream": Trial("the stock ML resets, hangs", "routed tasks untouched; what passes through 502/504", upstream),
    "long-screenshots": Trial(
        "four screenshots of 1080 x 53,000 at once beside eight clients",
        "every screenshot and every photo 200",
        long_screenshots,
        LONG_DEADLINE,
    ),
    "drip": Trial("200 clients send one byte a second", "the others keep their latency (ratio < 2)", drip),
    "vanish": Trial("1,000 clients vanish mid-upload, mid-wait", "gauges return to 0; no memory growth", vanish),
    "terminate": Trial("SIGTERM under load", "0 requests cut; exit code 0", terminate),
    "interrupt": Trial("Ctrl-C under load, whole process group", "0 requests cut; exit code 0", interrupt),
}

FATAL: Final = ("terminate", "interrupt")
"""Trials after which the installation is gone."""


def _gauges(world: World) -> Mapping[str, float]:
    return world.site.gauges(*(f"immich_gateway_{name}" for name in GAUGES))


def _idle(world: World) -> bool:
    return not any(_gauges(world).values())


def _connect(world: World) -> socket.socket:
    host, port = world.site.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 30)
