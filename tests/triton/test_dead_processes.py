"""Processes of models that die, hang or are killed by a request: real Triton, its supervisor, and the gateway's client.

A pipeline of two processes calls a net of two. Triton goes on to give requests to a process that is dead, each fails
after a second, and the models report ready all the while.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from embedded_triton import StartTriton, TritonServer
from small_models import write_model

from immich_triton.server import processes
from immich_triton.triton.client import Call, Poison, TritonClient
from immich_triton.triton.pipelines import Pipeline

pytestmark = pytest.mark.xdist_group("supervisor")  # what is waited for here is no computation

PIPE = Pipeline("pipe", ("visual",), ("net",))

NET = """
import os
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        values = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        for value in values:
            if value.min() < 0:
                os._exit(1)  # as a library that crashes over an image
            time.sleep(float(value.max()))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value)]) for value in values]
"""

PIPELINE = """
import numpy as np
import triton_python_backend_utils as pb_utils

from immich_pipelines.bls import call
from immich_pipelines.requests import Request, answer, failure


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(Request(request)) for request in requests]

    def _answer(self, request):
        try:
            (out,) = call("net", {"IN": np.array([[float(request.payload("IMAGE"))]], np.float32)}, ["OUT"])
        except Exception as error:
            return failure(error)
        return answer({"OUT": out})
"""

CONFIG = """
name: "pipe"
backend: "python"
max_batch_size: 8
input [ { name: "IMAGE", data_type: TYPE_STRING, dims: [ 1 ] } ]
output [ { name: "OUT", data_type: TYPE_FP32, dims: [ -1 ] } ]
dynamic_batching { }
instance_group [ { count: 2, kind: KIND_CPU } ]
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models") / "models"
    net = write_model(models, "net", code=NET) / "config.pbtxt"
    net.write_text(net.read_text().replace("count: 1", "count: 2") + "dynamic_batching { }\n")
    (write_model(models, "pipe", code=PIPELINE) / "config.pbtxt").write_text(CONFIG)
    return models


@pytest.fixture(scope="module")
def triton(triton_server: StartTriton, models: Path) -> Iterator[TritonServer]:
    with triton_server(models) as server:
        yield server


def processes_of(models: Path, model: str) -> list[int]:
    """Return the process ids of a model."""
    mark = f"{models}/{model}/".encode()
    found = []
    for pid in processes.pids():
        try:
            line = (processes.PROC / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue
        if b"triton_python_backend_stub" in line and mark in line:
            found.append(pid)
    return found


def served_by_others(models: Path, model: str, killed: int) -> bool:
    """Whether a model has processes, and the one that was killed is none of them."""
    serving = processes_of(models, model)
    return bool(serving) and killed not in serving


@asynccontextmanager
async def client_of(triton: TritonServer) -> AsyncIterator[TritonClient]:
    """Give a client, and see that all is well at the end, for the next test."""
    client = TritonClient(triton.url, timeout=60)
    try:
        yield client
        async with asyncio.timeout(120):
            await asyncio.gather(*(send(client, 0.01) for _ in range(4)))
            while not client.breaker(PIPE).is_closed:  # noqa: ASYNC110 - nobody would set an event
                await asyncio.sleep(0.05)
    finally:
        await client.close()


async def send(client: TritonClient, seconds: float, deadline: float = 150) -> float:
    """Send a request that the net works on for so many seconds; fewer than none kill it. Returns its answer."""
    answer = await client.infer(Call(PIPE, "IMAGE", str(seconds).encode(), ("OUT",)), deadline)
    return round(float(answer["OUT"].reshape(-1)[0]), 3)


async def stream(client: TritonClient, until: asyncio.Event) -> int:
    """Send one request after the other until the event; returns how many were answered, all of them."""
    count = 0
    while not until.is_set():
        assert await send(client, 0.05) == 0.05
        count += 1
    return count


@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", ["net", "pipe"])
async def test_a_process_that_is_killed_under_traffic_costs_no_answer(
    triton: TritonServer, models: Path, model: str
) -> None:
    async with client_of(triton) as client, asyncio.TaskGroup() as group:
        end = asyncio.Event()
        streams = [group.create_task(stream(client, end)) for _ in range(4)]
        await asyncio.sleep(0.5)
        told, killed = f"a process of model {model} died", processes_of(models, model)[0]
        before = triton.console.count(told)
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(120):
            while triton.console.count(told) == before or not served_by_others(models, model, killed):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        await asyncio.sleep(2)
        end.set()
        assert all([await one > 0 for one in streams])


@pytest.mark.timeout(600)
async def test_a_process_that_hangs_for_a_while_costs_no_answer(triton: TritonServer, models: Path) -> None:
    async with client_of(triton) as client, asyncio.TaskGroup() as group:
        end = asyncio.Event()
        streams = [group.create_task(stream(client, end)) for _ in range(4)]
        await asyncio.sleep(0.5)
        frozen = processes_of(models, "net")[0]
        os.kill(frozen, signal.SIGSTOP)
        try:
            await asyncio.sleep(8)
        finally:
            if frozen in processes_of(models, "net"):
                os.kill(frozen, signal.SIGCONT)
        end.set()
        assert all([await one > 0 for one in streams])


@pytest.mark.timeout(600)
async def test_a_request_that_kills_a_net_is_given_up_and_its_neighbours_are_answered(
    triton: TritonServer, models: Path
) -> None:
    async with client_of(triton) as client, asyncio.TaskGroup() as group:
        reloads = triton.console.count("process of model net")
        end = asyncio.Event()
        streams = [group.create_task(stream(client, end)) for _ in range(4)]
        await asyncio.sleep(0.5)
        with pytest.raises(Poison, match="poison: net died twice"):
            await send(client, -1)
        await asyncio.sleep(2)
        end.set()
        assert all([await one > 0 for one in streams])
    assert triton.console.count("process of model net") - reloads <= 2, triton.console
