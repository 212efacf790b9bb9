"""Parts of a measurement on a card: networks alone, rates in a given time, whether answers are those of a CPU."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format, text_format
from onnxruntime_backend.complete import complete
from onnxruntime_backend.engines import NUMPY_TYPES, load_engine
from onnxruntime_backend.settings import read_settings
from tritonclient.grpc import model_config_pb2

from benchmarks.samples import Sample
from benchmarks.targets import Service
from immich_pipelines import shapes as shape_table
from immich_pipelines.shapes import Shape

RUNS: Final = 20
SHOWN: Final = 4
"""So many shapes of a network: the smallest, the largest, and some between."""


def network_times(folder: Path, *, gpu: bool, runs: int = RUNS) -> dict[str, float]:
    """Return the median milliseconds of the network in *folder* in some of its shapes, each in a session of its own.

    A network without shapes, as exported for a CPU, is run in the first shape of the table for its kind.
    """
    config, shapes = config_and_shapes(folder)
    config["parameters"] = {
        **config.get("parameters", {}),
        shape_table.PARAMETER: {"string_value": shape_table.text(shapes)},
    }
    settings = read_settings(config, kind="GPU" if gpu else "CPU", warn=lambda _text: None)
    engine = load_engine(folder / "1/model.onnx", settings)
    (tensor,) = engine.inputs
    names = [output.name for output in engine.outputs]
    times = {}
    for shape in shapes:
        feed = {tensor.name: numbers(shape, np.dtype(NUMPY_TYPES[tensor.type]))}
        seconds = []
        for _ in range(runs):
            began = time.perf_counter()
            engine.run(names, feed)
            seconds.append(time.perf_counter() - began)
        times["x".join(map(str, shape))] = 1000 * float(np.median(seconds))
    engine.close()
    return times


def config_and_shapes(folder: Path, shown: int = SHOWN) -> tuple[dict[str, Any], list[Shape]]:
    """Return the config of the network in *folder*, complete, and up to *shown* of its shapes.

    That of the table for its kind where the config states none.
    """
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    config = json_format.MessageToDict(
        text_format.Parse(text, model_config_pb2.ModelConfig()), preserving_proto_field_name=True
    )
    complete(config, folder / "1/model.onnx")
    return config, some(shape_table.in_config(text), shown) or [_fallback(config)]


def some(shapes: Sequence[Shape], shown: int = SHOWN) -> list[Shape]:
    """Return up to *shown* of *shapes*, spread from the smallest to the largest."""
    ordered = sorted(shapes, key=lambda shape: (int(np.prod(shape)), shape))
    if len(ordered) <= shown:
        return ordered
    return [ordered[round(place)] for place in np.linspace(0, len(ordered) - 1, shown)]


def _fallback(config: Mapping[str, Any]) -> Shape:
    """Return one item as the config states it, with open sides as on a usual page or line of text."""
    dims = [int(size) for size in config["input"][0]["dims"]]
    sides = iter((736, 992) if dims.count(-1) == 2 else (320,))
    return (1, *(next(sides) if size < 0 else size for size in dims))


def numbers(shape: Shape, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return an input of *shape*, the same each time."""
    generator = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return generator.normal(size=shape).astype(dtype)
    return generator.integers(1, 200, size=shape).astype(dtype)


async def rate(service: Service, samples: Sequence[Sample], clients: int, seconds: float) -> tuple[float, float, int]:
    """Return requests per second, the median latency in seconds and the number of answers of *clients*.

    They ask for *seconds*.

    Raises `BenchError` with the first failure.
    """
    waiting, latencies = cycle(samples), list[float]()
    started = time.perf_counter()

    async def client() -> None:
        while not latencies or time.perf_counter() - started < seconds:
            began = time.perf_counter()
            await service.ask(next(waiting))
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(client() for _ in range(clients)))
    return len(latencies) / (time.perf_counter() - started), float(np.median(latencies)), len(latencies)


async def first_and_warm(service: Service, samples: Sequence[Sample]) -> tuple[float, float]:
    """Return the longest first answer after a start, and the longest when each sample is asked again; seconds."""
    longest = []
    for _ in range(2):
        worst = 0.0
        for sample in samples:
            began = time.perf_counter()
            await service.ask(sample)
            worst = max(worst, time.perf_counter() - began)
        longest.append(worst)
    return longest[0], longest[1]


def on_cpu(models: Path, target: Path) -> None:
    """Put a copy of the repository *models* into *target* whose networks run on the CPU; the weights are linked."""
    for folder in sorted(path for path in models.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(folder.rglob("*")):
            copy = target / path.relative_to(models)
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.name == "config.pbtxt":
                copy.write_text(_without_gpu(path.read_text(encoding="utf-8")), encoding="utf-8")
            else:
                copy.symlink_to(path.resolve())


def _without_gpu(config: str) -> str:
    for key in (
        "cudnn_conv_algo_search",
        "arena_extend_strategy",
        "gpu_mem_limit",
        "cuda_graphs",
        shape_table.PARAMETER,
    ):
        config = re.sub(rf'^parameters \{{ key: "{key}".*\n', "", config, flags=re.MULTILINE)
    return config.replace("KIND_GPU", "KIND_CPU")


def compare(task: str, ours: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]) -> str:
    """Say in a few words how far the answers *ours* are from the *reference*, request by request."""
    if task == "ocr":
        pairs = [(a["ocr"]["text"], b["ocr"]["text"]) for a, b in zip(ours, reference, strict=True)]
        lines = sum(len(expected) for _, expected in pairs)
        equal = sum((Counter(found) & Counter(wanted)).total() for found, wanted in pairs)
        return f"{equal} of {lines} lines identical"
    key = "clip" if task == "clip" else "facial-recognition"
    found, wanted = ([_vectors(key, answer[key]) for answer in answers] for answers in (ours, reference))
    if [len(each) for each in found] != [len(each) for each in wanted]:
        return f"{sum(map(len, found))} vectors, the CPU gives {sum(map(len, wanted))}"
    cosines = [
        float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        for ours_, theirs in zip(found, wanted, strict=True)
        for a, b in zip(ours_, theirs, strict=True)
    ]
    return f"{len(cosines)} vectors, lowest cosine {min(cosines):.6f}" if cosines else "no vectors"


def _vectors(key: str, fragment: Any) -> list[npt.NDArray[np.float64]]:
    """Return the embeddings of an answer, faces by place: their order is that of scores, which may be equal."""
    if key == "clip":
        return [np.array(json.loads(fragment), np.float64)]
    faces = sorted(fragment, key=lambda face: (face["boundingBox"]["x1"], face["boundingBox"]["y1"]))
    return [np.array(json.loads(face["embedding"]), np.float64) for face in faces]
