"""What a ``config.pbtxt`` says about running the model, as Triton hands it over (JSON), checked and with defaults.

The documented keys are those of Triton's C++ backend (README of triton-inference-server/onnxruntime_backend), with
the same names, values and defaults, so that one config suits both. `OWN_PARAMETERS` are this backend's additions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from immich_pipelines import shapes as shape_table
from immich_pipelines.cpus import available_cpus
from immich_pipelines.shapes import Shape

Value = TypeVar("Value")

DOCUMENTED_PARAMETERS: Final = frozenset(
    {
        "intra_op_thread_count",
        "inter_op_thread_count",
        "execution_mode",
        "enable_mem_arena",
        "enable_mem_pattern",
        "memory.enable_memory_arena_shrinkage",
        "session.use_device_allocator_for_initializers",
        "cudnn_conv_algo_search",
        "gpu_mem_limit",
        "arena_extend_strategy",
        "do_copy_in_default_stream",
    }
)
"""``parameters`` keys that the C++ backend documents; all are honoured here."""

OWN_PARAMETERS: Final = MappingProxyType(
    {
        "embedded_accelerator": "`openvino`: run the model with OpenVINO instead of ONNX Runtime (CPU only)",
        "inference_precision": "`f32` (default), `bf16` or `f16`: what OpenVINO computes in, where the CPU can",
        "shape_cache": "prepared kernels that OpenVINO keeps, one for each operator and shape; default 64",
        "largest_run": "elements of its inputs that OpenVINO computes at a time; of a batch that is larger, one item "
        "after the other, for less memory; default `0`: no bound",
        "allow_spinning": "`1`: idle ONNX Runtime threads spin instead of sleeping; default `0`",
        "nice": "niceness added to each process of the model (0 to 19); default 0",
        shape_table.PARAMETER: "`1x736x992x3 1x992x736x3 …`: a session for each of these shapes of the one input, "
        "batch size first; default: one session for all shapes",
        "cuda_graphs": "`1`: with `shapes` on a GPU, what each session does there is recorded once and repeated as a "
        "whole; default `0`",
        "shared_arena": "`0`: with `shapes`, an arena for each session instead of one for all; default `1`",
    }
)
"""``parameters`` keys that only this backend knows. The C++ backend ignores what it does not know."""

_PYTHON_BACKEND_PARAMETERS: Final = frozenset({"FORCE_CPU_ONLY_INPUT_TENSORS", "EXECUTION_ENV_PATH"})

Level = Literal["basic", "extended", "all", "disabled"]
_LEVELS: Final[Mapping[int, Level]] = MappingProxyType({-1: "basic", 0: "all", 1: "extended", 2: "disabled"})
_CONV_SEARCH: Final = MappingProxyType({"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"})
_ARENA_STRATEGY: Final = MappingProxyType({"0": "kNextPowerOfTwo", "1": "kSameAsRequested"})


class ConfigError(ValueError):
    """The model's config asks for something that does not exist or cannot be; the model does not load."""


@dataclass(frozen=True)
class Settings:
    """How to run one instance of a model."""

    engine: Literal["onnxruntime", "openvino"] = "onnxruntime"
    device_id: int | None = None
    """CUDA device, or None for the CPU."""
    intra_op_threads: int = 0
    """Threads inside an operator; never 0 after `read_settings`."""
    inter_op_threads: int = 0
    parallel: bool = False
    level: Level = "all"
    mem_arena: bool = True
    mem_pattern: bool = True
    allow_spinning: bool = False
    nice: int = 0
    inference_precision: str = "f32"
    shape_cache: int = 64
    largest_run: int = 0
    """Elements of the inputs; 0: no bound."""
    session_entries: Mapping[str, str] = field(default_factory=dict)
    run_entries: Mapping[str, str] = field(default_factory=dict)
    cuda: Mapping[str, str] = field(default_factory=dict)
    shapes: tuple[Shape, ...] = ()
    """A session for each of them; none: one session takes every shape."""
    cuda_graphs: bool = False
    """Whether their work is recorded."""
    shared_arena: bool = True
    """Whether these sessions take their memory from one arena."""


def read_settings(
    config: Mapping[str, Any], *, kind: str = "CPU", device_id: int = 0, warn: Callable[[str], None]
) -> Settings:
    """Read *config* (Triton's JSON form of ``config.pbtxt``) for an instance of *kind* (CPU, GPU, AUTO, MODEL).

    Unknown ``parameters`` go to *warn*, one line each. Raises `ConfigError` on a wrong value.
    """
    parameters = _Parameters(config, warn)
    gpu = kind == "GPU"
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    engine = parameters.choice("embedded_accelerator", {"": "onnxruntime", "openvino": "openvino"}, "onnxruntime")
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        if accelerator.get("name") != "openvino":
            raise ConfigError(f"unknown Execution Accelerator '{accelerator.get('name')}' is requested")
        engine = "openvino"
    if gpu and engine == "openvino":
        warn("embedded_accelerator openvino is for CPU instances; this instance runs ONNX Runtime on the GPU")
        engine = "onnxruntime"
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    session_entries = {}
    if (value := parameters.text("session.use_device_allocator_for_initializers")) is not None:
        session_entries["session.use_device_allocator_for_initializers"] = value
    run_entries = {}
    if (value := parameters.text("memory.enable_memory_arena_shrinkage")) is not None:
        run_entries["memory.enable_memory_arena_shrinkage"] = value
    return Settings(
        engine="openvino" if engine == "openvino" else "onnxruntime",
        device_id=device_id if gpu else None,
        intra_op_threads=parameters.integer("intra_op_thread_count", 0, 0, 1024) or available_cpus(),
        inter_op_threads=parameters.integer("inter_op_thread_count", 0, 0, 1024),
        parallel=parameters.integer("execution_mode", 0, 0, 1) == 1,
        level=_LEVELS.get(int(level), "all"),
        mem_arena=parameters.flag("enable_mem_arena", True),
        mem_pattern=parameters.flag("enable_mem_pattern", True),
        allow_spinning=parameters.flag("allow_spinning", False),
        nice=parameters.integer("nice", 0, 0, 19),
        inference_precision=parameters.choice(
            "inference_precision", {"f32": "f32", "bf16": "bf16", "f16": "f16"}, "f32"
        ),
        shape_cache=parameters.integer("shape_cache", Settings.shape_cache, 0, 1_000_000),
        largest_run=_largest_run(parameters, config),
        session_entries=session_entries,
        run_entries=run_entries,
        cuda=_cuda_options(parameters, accelerators) if gpu else {},
        shapes=_shapes(parameters, config),
        cuda_graphs=parameters.flag("cuda_graphs", False),
        shared_arena=parameters.flag("shared_arena", True),
    )


def _largest_run(parameters: _Parameters, config: Mapping[str, Any]) -> int:
    largest = parameters.integer("largest_run", Settings.largest_run, 0, 2**40)
    if largest and not int(config.get("max_batch_size", 0)):
        raise ConfigError(
            "parameter 'largest_run' needs a model that takes batches: set max_batch_size, or remove the parameter"
        )
    return largest


def _shapes(parameters: _Parameters, config: Mapping[str, Any]) -> tuple[Shape, ...]:
    if (value := parameters.text(shape_table.PARAMETER)) is None:
        return ()
    try:
        shapes = shape_table.parse(value)
    except ValueError as error:
        raise ConfigError(f"parameter '{shape_table.PARAMETER}': {error}") from error
    if not int(config.get("max_batch_size", 0)):
        raise ConfigError(
            f"parameter '{shape_table.PARAMETER}' needs a model that takes batches: set max_batch_size, or remove it"
        )
    return shapes


def _cuda_options(parameters: _Parameters, accelerators: Mapping[str, Any]) -> dict[str, str]:
    # DEFAULT is 20 to 200 times slower than the other two: it computes in a fallback. EXHAUSTIVE, the C++ backend's
    # default, is no faster than HEURISTIC, and tries everything first. kNextPowerOfTwo doubles the VRAM at each step.
    options = {
        "cudnn_conv_algo_search": parameters.choice("cudnn_conv_algo_search", _CONV_SEARCH, "HEURISTIC"),
        "arena_extend_strategy": parameters.choice("arena_extend_strategy", _ARENA_STRATEGY, "kSameAsRequested"),
    }
    for key in ("gpu_mem_limit", "do_copy_in_default_stream"):
        if (value := parameters.text(key)) is not None:
            options[key] = value
    for accelerator in accelerators.get("gpu_execution_accelerator", []):
        if accelerator.get("name") != "cuda":
            # TensorRT is documented for the C++ backend only.
            raise ConfigError(f"unknown Execution Accelerator '{accelerator.get('name')}' is requested")
        options.update({key: str(value) for key, value in accelerator.get("parameters", {}).items()})
    return options


class _Parameters:
    """The ``parameters`` of a config: strings by the C++ backend's convention."""

    def __init__(self, config: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        self._values = {
            key: str(value.get("string_value", "")).strip() for key, value in config.get("parameters", {}).items()
        }
        known = DOCUMENTED_PARAMETERS | OWN_PARAMETERS.keys() | _PYTHON_BACKEND_PARAMETERS
        for key in sorted(self._values.keys() - known):
            warn(f"parameter '{key}' is unknown and has no effect; known are: {', '.join(sorted(known))}")

    def text(self, key: str) -> str | None:
        return self._values.get(key)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        text = self._values.get(key)
        if text is None:
            return default
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ConfigError(f"parameter '{key}' must be a whole number from {low} to {high}, got '{text}'")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return self.choice(key, {"0": False, "false": False, "1": True, "true": True}, default)

    def choice(self, key: str, values: Mapping[str, Value], default: Value) -> Value:
        text = self._values.get(key)
        if text is None:
            return default
        for name, value in values.items():
            if text.lower() == name.lower():
                return value
        raise ConfigError(f"parameter '{key}' must be one of {', '.join(filter(None, values))}, got '{text}'")
