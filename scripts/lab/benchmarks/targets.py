"""Who is measured: a service that speaks Immich's protocol, Triton itself, RapidOCR in this process."""

from __future__ import annotations

import asyncio
import io
import json
import queue
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import numpy as np
from PIL import Image

from benchmarks.samples import Sample
from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.ml.protocol import Form, parse_task
from immich_triton.ml.route_file import Route
from immich_triton.ml.routes import load_routes
from immich_triton.ml.tasks import TASKS
from immich_triton.triton.client import TritonClient, TritonError


class BenchError(RuntimeError):
    """A measurement cannot be made, or a request failed in it; says who answered what."""


class Target(Protocol):
    """Answers samples. Failures raise `BenchError`: a rate over failed requests is no rate."""

    name: str

    async def ask(self, sample: Sample) -> None:
        """Have one sample answered."""

    async def close(self) -> None:
        """Free what it holds."""


class Service:
    """A gateway or a stock Immich ML at *url*, asked as Immich asks, over kept connections."""

    def __init__(self, name: str, url: str, task: str, *, model: str | None = None) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._entries = entries_for(task, model)
        self._bodies: dict[str, tuple[str, bytes]] = {}
        # Stock closes a connection that is idle for 2 s; do not run into that.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=1.0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=300))

    async def ask(self, sample: Sample) -> None:
        """POST the sample to ``/predict`` and read the answer."""
        await self.answer(sample)

    async def answer(self, sample: Sample) -> dict[str, Any]:
        """POST the sample to ``/predict`` and return the parsed answer."""
        if sample.name not in self._bodies:
            # Built once: making the body is the client's work and not what is measured.
            self._bodies[sample.name] = encode(self._entries, image=sample.image, text=sample.text)
        content_type, body = self._bodies[sample.name]
        try:
            headers = {"Content-Type": content_type}
            async with self._session.post(f"{self.url}/predict", data=body, headers=headers) as response:
                answer = await response.read()
                if response.status == 200:
                    parsed: dict[str, Any] = json.loads(answer)
                    return parsed
                raise BenchError(f"{self.name}: {response.status} for {sample.name}: {answer[:300]!r}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BenchError(f"{self.name}: no answer from {self.url} for {sample.name}: {error!r}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


class Straight:
    """The very call that the gateway makes, sent to Triton without the gateway."""

    name = "Triton alone"

    def __init__(self, url: str, models: Path, task: str, *, model: str | None = None, key: str = "") -> None:
        ((name, types),) = entries_for(task, model).items()
        self._entries = parse_task(name, types)
        self._route = route_of(models, task, model=model)
        self._task = TASKS[name]
        self._client = TritonClient(url, timeout=300, key=key)

    async def ask(self, sample: Sample) -> None:
        """Have the pipeline answer."""
        call = self._task.call(self._route, self._entries, Form(None, sample.image, sample.text))
        try:
            await self._client.infer(call, deadline=300)
        except TritonError as error:
            raise BenchError(f"{self.name}: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class RapidEngine:
    """RapidOCR in this process with its own models, *workers* engines that share *threads* threads.

    One engine per worker, since its objects are not made for several callers; each gets its part of the threads, so
    that no more run than Triton may use.
    """

    name = "RapidOCR in-process"

    def __init__(self, *, workers: int, threads: int) -> None:
        # Heavy to import, and only needed with --engine.
        from rapidocr_onnxruntime import RapidOCR

        self._pool = ThreadPoolExecutor(workers)
        self._engines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        minimum: Mapping[str, Any] = entries_for("ocr")["ocr"]
        for _ in range(workers):
            engine = RapidOCR(
                text_score=minimum["recognition"]["options"]["minScore"],
                box_thresh=minimum["detection"]["options"]["minScore"],
                intra_op_num_threads=max(1, threads // workers),
            )
            self._engines.put(engine)

    async def ask(self, sample: Sample) -> None:
        """Decode and read the image in a thread."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._read, sample)

    def _read(self, sample: Sample) -> None:
        engine = self._engines.get()
        try:
            pixels = np.asarray(Image.open(io.BytesIO(sample.image or b"")).convert("RGB"))[:, :, ::-1]
            engine(np.ascontiguousarray(pixels))
        finally:
            self._engines.put(engine)

    async def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def route_of(models: Path, task: str, *, model: str | None = None) -> Route:
    """Return the route that answers Immich's request of *task*. Raises `BenchError` when there is none."""
    ((name, types),) = entries_for(task, model).items()
    wanted = parse_task(name, types)[0].name
    route = load_routes(models).find(name, wanted)
    if route is None:
        raise BenchError(f"no route in {models} answers {name} {wanted}; is --models what the gateway serves?")
    return route
