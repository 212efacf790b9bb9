"""Answers of a dynamic batch that go out one by one, in the real server, and what may go wrong meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from embedded_triton import StartTriton, TritonServer

from harness.program import eventually

pytestmark = pytest.mark.xdist_group("supervisor")  # what is waited for here is no computation

# Answers each request when the file that it names is there; some do other things.
PIPELINE = """
import os
import time
import numpy as np
from immich_pipelines.errors import BadInput
from immich_pipelines.requests import serve


class TritonPythonModel:
    def execute(self, requests):
        self.size = len(requests)
        serve(requests, self.job, self.run, self.outputs)

    def job(self, request):
        if request.text("do") == "refuse":
            raise BadInput("nothing of the kind")
        return request.text("do"), request.text("file")

    def run(self, jobs):
        waiting, last = dict(enumerate(jobs)), []
        while waiting:
            for index, (do, file) in list(waiting.items()):
                if do == "wait" and not os.path.exists(file):
                    continue
                del waiting[index]
                if do == "forget":
                    continue
                if do == "raise":
                    last.append(index)
                    continue
                yield index, ValueError("its own fault \\ud800") if do == "fail" else do
            time.sleep(0.01)
        if last:
            raise KeyError("in the midst of it")

    def outputs(self, result):
        if result == "spoil":
            return {"TEXTS": None, "SIZE": None}
        if result == "break":
            raise LookupError("no such output")
        return {"TEXTS": np.array([[result]], np.object_), "SIZE": np.array([[self.size, os.getpid()]])}
"""

CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "TEXTS" data_type: TYPE_STRING dims: [ -1 ] }, { name: "SIZE" data_type: TYPE_INT64 dims: [ 2 ] } ]
dynamic_batching { max_queue_delay_microseconds: 60000000 preferred_batch_size: [ 4 ] }
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


@dataclass
class Answer:
    """What came of a request: the size of its batch and the process that worked on it, where these were asked for."""

    status: int
    text: str
    batch: int = 0
    pid: int = 0


class Probe:
    """Sends batches of four to the model, which takes no others."""

    def __init__(self, server: TritonServer, gate: Path) -> None:
        self.server = server
        self.gate = gate
        self._pool = ThreadPoolExecutor(8)

    def batch(self, *does: str, outputs: tuple[str, ...] = ("TEXTS", "SIZE")) -> list[Future[Answer]]:
        """Send one request for each of *does*; those that ``wait`` do so until there is a file ``gate``."""
        assert len(does) == 4
        self.gate.unlink(missing_ok=True)
        return [self._pool.submit(self._ask, do, outputs) for do in does]

    def answers(self, *does: str, outputs: tuple[str, ...] = ("TEXTS", "SIZE")) -> list[Answer]:
        return [future.result() for future in self.batch(*does, outputs=outputs)]

    def _ask(self, do: str, outputs: tuple[str, ...]) -> Answer:
        body = {
            "inputs": [{"name": "IN", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}],
            "outputs": [{"name": name} for name in outputs],
            "parameters": {"do": do, "file": str(self.gate)},
        }
        response = requests.post(f"{self.server.url}/v2/models/probe/infer", json=body, timeout=120)
        if not response.ok:
            return Answer(response.status_code, response.json()["error"])
        found = {output["name"]: output["data"] for output in response.json()["outputs"]}
        assert set(found) == set(outputs)
        return Answer(200, found.get("TEXTS", [""])[0], *found.get("SIZE", ()))


@pytest.fixture(scope="module")
def probe(triton_server: StartTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    folder = tmp_path_factory.mktemp("early")
    (folder / "models/probe/1").mkdir(parents=True)
    (folder / "models/probe/config.pbtxt").write_text(CONFIG)
    (folder / "models/probe/1/model.py").write_text(PIPELINE)
    with triton_server(folder / "models") as server:
        yield Probe(server, folder / "gate")


@pytest.fixture
def pid(probe: Probe) -> int:
    """Give the process that works on batches before the test."""
    return probe.answers("quick", "quick", "quick", "quick")[0].pid


def still_works(probe: Probe, pid: int) -> bool:
    """Whether the same process goes on; a crash of it, or of Triton, would have replaced it."""
    answers = probe.answers("quick", "quick", "quick", "quick")
    return [(answer.status, answer.batch, answer.pid) for answer in answers] == [(200, 4, pid)] * 4


def test_nobody_waits_for_the_slowest(probe: Probe, pid: int) -> None:
    quick, slow, refused, other = probe.batch("quick", "wait", "refuse", "quick")
    assert (quick.result().status, other.result().status, refused.result().status) == (200, 200, 400)
    assert refused.result().text == "bad input: nothing of the kind"
    assert not slow.done()
    probe.gate.touch()
    assert {(one.result().text, one.result().batch) for one in (quick, slow, other)} == {("quick", 4), ("wait", 4)}
    assert still_works(probe, pid)


def test_whatever_goes_wrong_everybody_gets_an_answer(probe: Probe, pid: int) -> None:
    assert [one.status for one in probe.answers("break", "spoil", "quick", "quick")] == [500, 500, 200, 200]
    quick, failed, broken, forgotten = probe.answers("quick", "fail", "break", "forget")
    assert [one.status for one in (quick, failed, broken, forgotten)] == [200, 500, 500, 500]
    assert broken.text == "LookupError: no such output"
    assert failed.text == "ValueError: its own fault ?"
    assert forgotten.text == "RuntimeError: the pipeline gave no answer"
    assert still_works(probe, pid)


def test_an_exception_after_the_first_answers_harms_nobody_else(probe: Probe, pid: int) -> None:
    """Were it to leave ``execute``, Triton would free memory twice."""
    first, second, raised, third = probe.answers("quick", "quick", "raise", "quick")
    assert [one.status for one in (first, second, third)] == [200, 200, 200]
    assert (raised.status, raised.text) == (500, "KeyError: 'in the midst of it'")
    assert still_works(probe, pid)


@pytest.mark.parametrize("output", ["TEXTS", "SIZE"])
def test_a_part_of_the_outputs_can_be_asked_for(probe: Probe, pid: int, output: str) -> None:
    """Triton's own way to drop the others crashes the process."""
    answers = probe.answers("quick", "quick", "quick", "quick", outputs=(output,))
    assert [answer.status for answer in answers] == [200] * 4
    assert still_works(probe, pid)


def test_a_process_that_dies_owes_only_those_it_has_not_answered(probe: Probe, pid: int) -> None:
    triton = probe.server.pid
    quick, slow, other, waiting = probe.batch("quick", "wait", "quick", "wait")
    assert (quick.result().status, other.result().status) == (200, 200)
    os.kill(pid, signal.SIGKILL)
    assert (slow.result().status, waiting.result().status) == (500, 500)
    probe.gate.touch()
    assert eventually(lambda: probe.answers("quick", "quick", "quick", "quick")[0].status == 200, 120)
    assert probe.server.pid == triton
