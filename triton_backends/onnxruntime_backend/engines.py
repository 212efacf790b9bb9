"""ONNX files as something that runs: with ONNX Runtime, or with OpenVINO."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from immich_pipelines import onnx_metadata
from onnxruntime_backend import mapped_weights
from onnxruntime_backend.settings import ConfigError, Settings
from onnxruntime_backend.weights_file import WeightsFile

Array = npt.NDArray[Any]

TRITON_TYPES: Final = MappingProxyType(
    {
        "tensor(bool)": "TYPE_BOOL",
        "tensor(uint8)": "TYPE_UINT8",
        "tensor(uint16)": "TYPE_UINT16",
        "tensor(uint32)": "TYPE_UINT32",
        "tensor(uint64)": "TYPE_UINT64",
        "tensor(int8)": "TYPE_INT8",
        "tensor(int16)": "TYPE_INT16",
        "tensor(int32)": "TYPE_INT32",
        "tensor(int64)": "TYPE_INT64",
        "tensor(float16)": "TYPE_FP16",
        "tensor(float)": "TYPE_FP32",
        "tensor(double)": "TYPE_FP64",
        "tensor(string)": "TYPE_STRING",
    }
)
"""ONNX Runtime's type names and Triton's. bfloat16 is missing: numpy, and so a Python-based backend, has no such."""

NUMPY_TYPES: Final = MappingProxyType(
    {
        "TYPE_BOOL": np.bool_,
        "TYPE_UINT8": np.uint8,
        "TYPE_UINT16": np.uint16,
        "TYPE_UINT32": np.uint32,
        "TYPE_UINT64": np.uint64,
        "TYPE_INT8": np.int8,
        "TYPE_INT16": np.int16,
        "TYPE_INT32": np.int32,
        "TYPE_INT64": np.int64,
        "TYPE_FP16": np.float16,
        "TYPE_FP32": np.float32,
        "TYPE_FP64": np.float64,
    }
)
"""Triton's names of the types of numbers, and numpy's types."""


class BadRequestError(ValueError):
    """The request does not fit the model: the caller's fault, not the server's."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output as the ONNX file declares it; -1 is a dynamic dimension, the batch axis included."""

    name: str
    type: str
    """One of Triton's ``TYPE_…`` names."""
    shape: tuple[int, ...] | None
    """None where not even the number of dimensions is known."""


class Engine(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        """What the model takes."""
        ...

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        """What the model gives."""
        ...

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute *outputs*, in this order. Raises `BadRequestError` when *feed* does not fit the model."""
        ...

    def release(self) -> None:
        """Give back memory that the next run can have anew; may be called by another thread, at any time."""
        ...

    def close(self) -> None:
        """Free what the model holds."""
        ...


def load_engine(path: Path, settings: Settings, *, warn: Callable[[str], None] = lambda _text: None) -> Engine:
    """Load the ONNX file *path*; what is not as the settings ask, and no reason to stop, goes to *warn*.

    Raises `ConfigError` when the settings cannot be met, or the weights beside the model are not its own.
    """
    from onnxruntime_backend.guarded_engine import GuardedEngine

    # OpenVINO refuses weights that lie elsewhere than the model: both may be links to where they lie together.
    path = path.resolve()
    weights = WeightsFile(path)
    engine = _load(path, settings, warn)
    if settings.device_id is None and onnx_metadata.too_wide(path):
        warn(
            "this CPU has no instruction that multiplies such bytes (VNNI): the model's are computed in floats, with "
            "the same answers, but slower than a model of floats"
        )
    return GuardedEngine(engine, weights) if weights.exists else engine


def _load(path: Path, settings: Settings, warn: Callable[[str], None]) -> Engine:
    if settings.shapes:
        from onnxruntime_backend.shaped_engine import load

        return load(path, settings, warn)
    if settings.engine == "openvino":
        from onnxruntime_backend.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(path, settings)
    return OnnxRuntimeEngine(path, settings)


def runtime_module() -> Any:
    """Return the module onnxruntime. Raises `ConfigError` without it."""
    # By name, and looked into: without the package, this backend's own folder triton_backends/onnxruntime is imported.
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        runtime = None
    if not hasattr(runtime, "InferenceSession"):
        raise ConfigError("Triton's Python interpreter lacks the package onnxruntime")
    return runtime


class OnnxRuntimeEngine:
    """An ONNX Runtime session on the CPU or on one CUDA device.

    *sizes* fixes dimensions that the file names and leaves open; the session refuses all others then, and is prepared
    for these.
    """

    def __init__(self, path: Path, settings: Settings, sizes: Mapping[str, int] = MappingProxyType({})) -> None:
        runtime = runtime_module()
        self._folder = path.parent
        said = "" if settings.device_id is None else _find_cuda(runtime)
        options = _session_options(runtime, settings)
        if onnx_metadata.too_wide(path):
            # Bytes become floats before they are multiplied. Where the model itself says that bytes are multiplied,
            # these are unsigned ones, whose products are added up in 32 bits.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            options.add_session_config_entry("session.x64quantprecision", "1")
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        self._session = runtime.InferenceSession(
            str(path), sess_options=options, providers=_providers(runtime, settings)
        )
        if settings.device_id is not None and "CUDAExecutionProvider" not in self._session.get_providers():
            # ONNX Runtime only logs it and goes on with the CPU.
            raise ConfigError(
                f"ONNX Runtime could not use GPU {settings.device_id} ({said or 'it does not say why'}); "
                "immich-triton doctor looks at card and driver; instance_group { kind: KIND_CPU } keeps it on the CPU"
            )
        self._run_options = runtime.RunOptions()
        for key, value in settings.run_entries.items():
            self._run_options.add_run_config_entry(key, value)
        self._bad_request = runtime.capi.onnxruntime_pybind11_state.InvalidArgument
        self.inputs, self.outputs = _tensors(self._session)
        self._strings = {tensor.name for tensor in self.inputs + self.outputs if tensor.type == "TYPE_STRING"}

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute *outputs*; strings are bytes on both sides, UTF-8 inside."""
        if self._strings:
            feed = {name: _decode(name, value) if name in self._strings else value for name, value in feed.items()}
        try:
            values = self._session.run(list(outputs), dict(feed), self._run_options)
        except self._bad_request as error:
            raise BadRequestError(str(error)) from error
        if self._strings:
            return [
                _encode(value) if name in self._strings else value for name, value in zip(outputs, values, strict=True)
            ]
        return list(values)

    def release(self) -> None:
        """Let go of the weights that are only mapped into memory, as of a text encoder the rows of words just used.

        ONNX Runtime shrinks its arena at the end of a run or not at all, see `Settings.run_entries`.
        """
        mapped_weights.let_go(self._folder)

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _find_cuda(runtime: Any) -> str:
    """Load the CUDA and cuDNN that lie among the packages, whatever LD_LIBRARY_PATH says.

    Triton gives its own to the processes of the models, where these are not. Returns what was not found, which may be
    something that nobody needs.
    """
    said = io.StringIO()
    if hasattr(runtime, "preload_dlls"):
        # The empty name: the packages' folders, and not those of a torch that somebody has imported.
        with contextlib.redirect_stdout(said):
            runtime.preload_dlls(directory="")
    return " ".join(said.getvalue().split())[:300]


def open_dimensions(path: Path) -> dict[str, list[str | int | None]]:
    """Return the dimensions of each input of the ONNX file *path*: sizes, names of open ones, None without a name."""
    runtime = runtime_module()
    options = _session_options(runtime, Settings(level="disabled", intra_op_threads=1))
    session = runtime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    return {node.name: list(node.shape) for node in session.get_inputs()}


def describe(path: Path) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the inputs and outputs of the ONNX file *path* as ONNX Runtime sees them, without optimising it."""
    runtime = runtime_module()
    options = _session_options(runtime, Settings(level="disabled", intra_op_threads=1))
    return _tensors(runtime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"]))


def _session_options(runtime: Any, settings: Settings) -> Any:
    options = runtime.SessionOptions()
    levels = runtime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
        "disabled": levels.ORT_DISABLE_ALL,
    }[settings.level]
    modes = runtime.ExecutionMode
    options.execution_mode = modes.ORT_PARALLEL if settings.parallel else modes.ORT_SEQUENTIAL
    # Given a number, ONNX Runtime does not pin its threads; left to itself it pins them to the first cores, in every
    # process of the server to the same ones.
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    options.enable_cpu_mem_arena = settings.mem_arena
    options.enable_mem_pattern = settings.mem_pattern
    options.log_severity_level = 3
    spinning = "1" if settings.allow_spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    for key, value in settings.session_entries.items():
        options.add_session_config_entry(key, value)
    return options


def _providers(runtime: Any, settings: Settings) -> list[Any]:
    if settings.device_id is None:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise ConfigError(
            f"the config asks for GPU {settings.device_id}, but the installed onnxruntime has no CUDA support: run "
            "immich-triton setup --gpu and immich-triton run --gpu, or export again without --gpu"
        )
    return [("CUDAExecutionProvider", {**settings.cuda, "device_id": str(settings.device_id)}), "CPUExecutionProvider"]


def _tensors(session: Any) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    return tuple(map(_tensor, session.get_inputs())), tuple(map(_tensor, session.get_outputs()))


def _tensor(node: Any) -> TensorInfo:
    if node.type not in TRITON_TYPES:
        raise ConfigError(f"tensor '{node.name}' has type {node.type}, which Triton's Python backend cannot carry")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorInfo(node.name, TRITON_TYPES[node.type], shape)


def _decode(name: str, value: Array) -> Array:
    try:
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in value.flat]
    except UnicodeDecodeError as error:
        raise BadRequestError(f"input '{name}' is not valid UTF-8: {error}") from error
    result = np.empty(value.size, dtype=np.object_)
    result[:] = texts
    return result.reshape(value.shape)


def _encode(value: Array) -> Array:
    result = np.empty(value.size, dtype=np.object_)
    result[:] = [str(item).encode() for item in value.flat]
    return result.reshape(value.shape)
