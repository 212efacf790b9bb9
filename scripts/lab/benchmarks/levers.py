"""What may make a network faster on a card than its export does: each tried alone, beside the network as exported.

Whether answers stay what they are is measured with it: faster and less accurate is not faster.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime_backend.engines import NUMPY_TYPES, TRITON_TYPES, open_dimensions, runtime_module

from benchmarks.card import config_and_shapes, numbers
from immich_pipelines.shapes import Shape
from immich_triton.export.half import halve

Array = npt.NDArray[Any]
Run = Callable[[], list[Array]]

CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
CPU: Final = "CPUExecutionProvider"
SHAPES: Final = 2
"""So many shapes of each network: the smallest and the largest."""
PLAIN: Final[Mapping[str, str]] = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
"""What an export with --gpu asks of CUDA's provider."""


class LeverError(Exception):
    """The lever cannot be tried here; the text says why."""


@dataclass(frozen=True)
class Lever:
    """One change: *options* of the *provider*.

    *bound*: inputs and outputs keep their places on the card; *half*: in fp16.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    provider: str = CUDA
    bound: bool = False
    half: bool = False


LEVERS: Final = (
    # A session with an export's weights and search and nothing else: exports for OCR and faces ask for a graph too.
    Lever("as exported"),
    Lever("bound", bound=True),
    # A graph repeats reads and writes at the very addresses that it was recorded with.
    Lever("CUDA graph", {"enable_cuda_graph": "1"}, bound=True),
    Lever("NHWC", {"prefer_nhwc": "1"}),
    Lever("exhaustive search", {"cudnn_conv_algo_search": "EXHAUSTIVE"}),
    Lever("fp16", half=True),
    Lever("fp16, NHWC", {"prefer_nhwc": "1"}, half=True),
    Lever("fp16, CUDA graph", {"enable_cuda_graph": "1"}, bound=True, half=True),
    Lever("TensorRT", provider=TENSORRT),
    Lever("TensorRT fp16", {"trt_fp16_enable": "1"}, provider=TENSORRT),
)


def named(name: str) -> Lever:
    """Return the lever of that *name*. Raises `LeverError`."""
    for lever in LEVERS:
        if lever.name == name:
            return lever
    raise LeverError(f"there is no lever {name!r}; there are {', '.join(lever.name for lever in LEVERS)}")


def providers(lever: Lever, available: Sequence[str], *, gpu: bool) -> list[Any]:
    """Return what ONNX Runtime is asked to compute with. Raises `LeverError` where it has no such provider.

    Without a GPU a lever that is nothing but one of CUDA's options is refused: on a CPU it would change nothing.
    """
    if not gpu:
        if lever.options or lever.provider != CUDA:
            raise LeverError("is for a card")
        return [CPU]
    if lever.provider not in available:
        raise LeverError(f"this onnxruntime has no {lever.provider}; it has {', '.join(available)}")
    cuda = (CUDA, {**PLAIN, **(lever.options if lever.provider == CUDA else {}), "device_id": "0"})
    if lever.provider == CUDA:
        return [cuda, CPU]
    return [(lever.provider, {**lever.options, "device_id": "0"}), cuda, CPU]


@dataclass(frozen=True)
class Found:
    """What came of a network in one shape: the median of its time, and how far it is from what the CPU gives."""

    what: str
    milliseconds: float
    difference: float
    """The largest of a number in any output."""
    cosine: float | None
    """The lowest of an embedding; None where there is none."""


def measure(folders: Sequence[Path], lever: Lever, *, gpu: bool, runs: int) -> Iterator[Found]:
    """Yield what came of each network in *folders*.

    Raises `LeverError`, or what ONNX Runtime raises.
    """
    runtime = runtime_module()
    if gpu:
        runtime.preload_dlls(directory="")
    chosen = providers(lever, runtime.get_available_providers(), gpu=gpu)
    for folder in folders:
        path = folder / "1/model.onnx"
        model: Any = str(path)
        if lever.half:
            model = halve(onnx.load(path)).SerializeToString()
        for shape in config_and_shapes(folder, SHAPES)[1]:
            session = _session(runtime, model, path, shape, chosen)
            if gpu and lever.provider not in session.get_providers():
                raise LeverError(f"{lever.provider} did not load: its libraries are not installed")
            (tensor,) = session.get_inputs()
            value = numbers(shape, np.dtype(NUMPY_TYPES[TRITON_TYPES[tensor.type]]))
            expected = _session(runtime, str(path), path, shape, [CPU]).run(None, {tensor.name: value})
            run = _bound(runtime, session, value, expected, "cuda" if gpu else "cpu") if lever.bound else None
            run = run or (lambda session=session, feed={tensor.name: value}: session.run(None, feed))  # type: ignore[misc]
            found = [run() for _ in range(3)][-1]  # the first prepares, a graph is recorded at the second
            pairs = [
                (ours.astype(np.float64), theirs.astype(np.float64))
                for ours, theirs in zip(found, expected, strict=True)
                if np.issubdtype(theirs.dtype, np.floating)
            ]
            yield Found(
                f"{folder.name} {'x'.join(map(str, shape))}",
                _median(run, runs),
                max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs),
                min((_cosine(*pair) for pair in pairs if _embeds(pair[0])), default=None),
            )


def _embeds(output: Array) -> bool:
    return output.ndim == 2 and output.shape[1] >= LEAST_DIMENSION


def _cosine(ours: Array, theirs: Array) -> float:
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / lengths).min())


LEAST_DIMENSION: Final = 128
"""Vectors of so many numbers are embeddings, whose cosine is what counts."""


def _session(runtime: Any, model: Any, path: Path, shape: Shape, chosen: Sequence[Any]) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    (dimensions,) = open_dimensions(path).values()
    for name, size in zip(dimensions, shape, strict=True):
        if isinstance(name, str):
            options.add_free_dimension_override_by_name(name, size)
    return runtime.InferenceSession(model, sess_options=options, providers=list(chosen))


def _bound(runtime: Any, session: Any, value: Array, expected: Sequence[Array], device: str) -> Run:
    """Return a run whose input and outputs stay in their places; the copies there and back are part of it."""
    binding = session.io_binding()
    place = runtime.OrtValue.ortvalue_from_numpy(value, device, 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, place)
    results = []
    for output, like in zip(session.get_outputs(), expected, strict=True):
        results.append(runtime.OrtValue.ortvalue_from_shape_and_type(like.shape, like.dtype, device, 0))
        binding.bind_ortvalue_output(output.name, results[-1])

    def run() -> list[Array]:
        place.update_inplace(value)
        session.run_with_iobinding(binding)
        return [result.numpy() for result in results]

    return run


def _median(run: Run, runs: int) -> float:
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds))


def report(folders: Sequence[Path], name: str, *, gpu: bool, runs: int) -> dict[str, Any]:
    """Return what `measure` found of the lever *name*, ready for JSON: ``found``, and an ``error``."""
    found: list[dict[str, Any]] = []
    error = ""
    try:
        found += (asdict(one) for one in measure(folders, named(name), gpu=gpu, runs=runs))
    except Exception as problem:  # noqa: BLE001 - what ONNX Runtime raises is its own; the next lever goes on
        error = " ".join(str(problem).split())[:200] or repr(problem)
    return {"found": found, "error": error}


def rows(
    folders: Sequence[Path], names: Sequence[str], *, gpu: bool, runs: int, deadline: float
) -> Iterator[tuple[str, str]]:
    """Yield a row for each lever in *names*, until the monotonic time *deadline*; each in a process of its own.

    What a provider breaks, and what memory it took, ends with its process.
    """
    exported: dict[str, float] = {}
    for name in names:
        if (left := deadline - time.monotonic()) < LEAST_SECONDS:
            yield f"lever: {name}", "not measured: no time left"
            continue
        line = [sys.executable, "-c", _ALONE, name, str(int(gpu)), str(runs), *map(str, folders)]
        try:
            done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=min(left, MOST_SECONDS))
            told = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired as error:
            yield f"lever: {name}", f"not measured: took longer than {error.timeout:.0f} s"
            continue
        except (ValueError, IndexError):
            said = done.stderr.strip().splitlines() or [""]
            yield f"lever: {name}", f"its process ended with {done.returncode}: {said[-1][:200]}"
            continue
        exported = exported or {one["what"]: one["milliseconds"] for one in told["found"]}
        yield f"lever: {name}", _said(told["found"], told["error"], exported)


def _said(found: Sequence[Mapping[str, Any]], error: str, exported: Mapping[str, float]) -> str:
    parts = []
    for one in found:
        what, milliseconds = one["what"], one["milliseconds"]
        times = f" ({milliseconds / exported[what]:.2f}x)" if what in exported else ""
        parts.append(f"{what}: {milliseconds:.2f} ms{times}")
    if found:
        parts.append(f"largest difference {max(one['difference'] for one in found):.1e}")
    if cosines := [one["cosine"] for one in found if one["cosine"] is not None]:
        parts.append(f"lowest cosine {min(cosines):.6f}")
    if error:
        parts.append(f"not possible: {error}")
    return ", ".join(parts)


LEAST_SECONDS: Final = 10.0
"""A lever is not begun with less: CUDA alone takes some of it to start."""
MOST_SECONDS: Final = 40.0
"""TensorRT builds an engine for each shape first."""

_ALONE: Final = f"""
import json, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from benchmarks.levers import report
name, gpu, runs, *folders = sys.argv[1:]
print(json.dumps(report(list(map(Path, folders)), name, gpu=gpu == "1", runs=int(runs))))
"""
