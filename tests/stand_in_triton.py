"""A server that speaks Triton's HTTP protocol and misbehaves on demand; the real one cannot be made to.

It answers the `ocr`, `faces`, `clip_image` and `clip_text` pipelines with fixed tensors.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from immich_triton.ml.route_file import Route, write_route
from immich_triton.triton.pipelines import Pipeline
from immich_triton.triton.transport import MARK

DIMENSION = 512
VECTOR = np.full(DIMENSION, 1 / np.sqrt(DIMENSION), dtype=np.float32)

FINGERPRINT = 20_251_127

CLIP_NAME, OCR_NAME = "ViT-B-16__openai", "PP-OCRv5_mobile"


@dataclass
class StandInTriton:
    """Set the fields at any time; ``behaviour`` is looked up for every call, by pipeline (or "" for all).

    ``calls`` are the inference requests that came, ``now`` is how many of them are here, ``most`` how many were at the
    same time; ``probes`` is how often a model was asked whether it is ready.
    """

    url: str = ""
    unready: set[str] = field(default_factory=set)
    delay: float = 0.0
    behaviour: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0
    probes: int = 0
    held: bool = False
    config: dict[str, Any] = field(default_factory=lambda: {"max_batch_size": 1, "instance_group": [{"count": 1}]})

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Answer no inference request while the block lasts."""
        self.held = True
        try:
            yield
        finally:
            self.held = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer readiness, configs and inference."""
        parts = request.path.split("/")
        if request.path.endswith("/ready"):
            self.probes += 1
            if self.behaviour.get("") == "hang":
                await asyncio.sleep(60)
            return web.Response(status=400 if parts[3] in self.unready else 200)
        if request.path.endswith("/config"):
            return web.json_response(self.config)
        if not request.path.endswith("/infer"):
            return web.json_response([])
        pipeline = parts[3]
        await request.read()
        self.calls.append(pipeline)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            while self.held:  # noqa: ASYNC110 - another thread lets go
                await asyncio.sleep(0.01)
            await asyncio.sleep(self.delay)
            return await self._infer(request, pipeline, self.behaviour.get(pipeline, self.behaviour.get("", "")))
        finally:
            self.now -= 1

    async def _infer(self, request: web.Request, pipeline: str, behaviour: str) -> web.StreamResponse:
        outputs = tensors(pipeline)
        match behaviour:
            case "hang":
                while self.behaviour.get(pipeline, self.behaviour.get("", "")) == "hang":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            case "dead process":
                text = f"Stub process '{pipeline}_0_0' is not healthy."
                return web.json_response({"error": text}, status=500)
            case "reset":
                assert request.transport
                request.transport.abort()
            case "400":
                return web.json_response({"error": f"{MARK}this is no image"}, status=400)
            case "500" | "503" | "403":
                return web.json_response({"error": f"made to fail with {behaviour}"}, status=int(behaviour))
            case "older pipeline":
                # As Triton says it to who asks for an output that the config does not name.
                text = f"[request id: <id_unknown>] unexpected inference output 'FINGERPRINT' for model '{pipeline}'"
                return web.json_response({"error": text}, status=400)
            case "no proof":
                outputs = [output for output in outputs if output["name"] != "FINGERPRINT"]
            case "other weights":
                outputs[-1]["data"] = [FINGERPRINT + 1]
            case "empty":
                return web.json_response({"model_name": pipeline, "outputs": []})
            case "error in a 200":
                return web.json_response({"error": "failed"})
            case "not json":
                return web.Response(body=b"<html>It works!</html>", content_type="text/html")
            case "nan":
                for output in outputs:
                    if output["datatype"] == "FP32":
                        # JSON has no NaN, but Triton's own client reads this.
                        output["data"] = [float("inf")] * len(output["data"])
            case "short":
                for output in outputs:
                    output["data"], output["shape"] = output["data"][:-1], [1, max(0, len(output["data"]) - 1)]
            case "lying shape":
                for output in outputs:
                    output["shape"] = [1, 7, 3]
            case "strings":
                for output in outputs:
                    output["data"] = ["x"] * len(output["data"])
        body = orjson.dumps({"model_name": pipeline, "model_version": "1", "outputs": outputs})
        if behaviour == "nan":
            body = body.replace(b"null", b"NaN")
        if behaviour == "truncated":
            response = web.StreamResponse(headers={"content-length": str(len(body))})
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            assert request.transport
            request.transport.close()
            return response
        if behaviour == "truncated binary":
            for output in outputs:
                output["parameters"] = {"binary_data_size": 2048}
                del output["data"]
            body = orjson.dumps({"outputs": outputs})
            return web.Response(body=body + b"\0" * 100, headers={"inference-header-content-length": str(len(body))})
        return web.Response(body=body, content_type="application/json")


def tensors(pipeline: str) -> list[dict[str, Any]]:
    """Return the outputs of a pipeline as JSON: one text line for OCR, one face, a unit vector for CLIP."""
    size = {"name": "IMAGE_SIZE", "datatype": "INT32", "shape": [1, 2], "data": [48, 64]}
    if pipeline == "ocr":
        return [
            {"name": "BOXES", "datatype": "FP32", "shape": [1, 1, 8], "data": [0.1, 0.1, 0.9, 0.1, 0.9, 0.2, 0.1, 0.2]},
            {"name": "BOX_SCORES", "datatype": "FP32", "shape": [1, 1], "data": [0.9]},
            {"name": "TEXTS", "datatype": "BYTES", "shape": [1, 1], "data": ["text"]},
            {"name": "TEXT_SCORES", "datatype": "FP32", "shape": [1, 1], "data": [0.95]},
            size,
        ]
    if pipeline == "faces":
        return [
            {"name": "BOXES", "datatype": "FP32", "shape": [1, 1, 4], "data": [10.4, 8.6, 30.4, 40.6]},
            {"name": "SCORES", "datatype": "FP32", "shape": [1, 1], "data": [0.875]},
            {"name": "EMBEDDINGS", "datatype": "FP32", "shape": [1, 1, 512], "data": [3.0, 4.0, *[0.0] * 510]},
            {"name": "LANDMARKS", "datatype": "FP32", "shape": [1, 1, 5, 2], "data": [1.0] * 10},
            size,
        ]
    embedding = {"name": "EMBEDDING", "datatype": "FP32", "shape": [1, DIMENSION], "data": VECTOR.tolist()}
    proof = {"name": "FINGERPRINT", "datatype": "INT64", "shape": [1, 1], "data": [FINGERPRINT]}
    return [embedding, size, proof] if pipeline == "clip_image" else [embedding, proof]


def write_routes(models: Path) -> Path:
    """Write routes for OCR and CLIP into the folder *models*, and return it."""
    for name in ("ocr_rec", "clip"):
        (models / name).mkdir(parents=True)
    ocr = Pipeline("ocr", ["detection", "recognition"], ["ocr_det", "ocr_rec"])
    write_route(models / "ocr_rec", Route("ocr", [OCR_NAME], [ocr], "a" * 64))
    image = Pipeline("clip_image", ["visual"], ["visual"], {"encoder": "visual"}, FINGERPRINT)
    text = Pipeline("clip_text", ["textual"], ["textual"], {"encoder": "textual"}, FINGERPRINT)
    write_route(models / "clip", Route("clip", [CLIP_NAME], [image, text], "b" * 64, dimension=DIMENSION))
    return models


@contextmanager
def stand_in_triton(port: int = 0) -> Iterator[StandInTriton]:
    """Run the server in a thread."""
    triton = StandInTriton()
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", triton.handle)
        # A call that the gateway has given up is not here any more, also where it would hang.
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handle_signals=False, handler_cancellation=True
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        triton.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        await runner.cleanup()
        hanging = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    if not started.wait(60):
        raise AssertionError("the stand-in for Triton did not start")
    try:
        yield triton
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
