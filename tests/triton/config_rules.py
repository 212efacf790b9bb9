"""What a ``config.pbtxt`` may say here, so that the embedded Triton and the NGC container take the same file.

Allowed is what Triton documents for its C++ ONNX Runtime backend and its Python backend, and our own ``parameters``,
which those ignore. Parsing uses Triton's own ``model_config.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf import json_format, text_format
from onnxruntime_backend.settings import DOCUMENTED_PARAMETERS, OWN_PARAMETERS, ConfigError, read_settings
from tritonclient.grpc import model_config_pb2

from immich_pipelines.shapes import parse

FIELDS: Final = {
    "name",
    "backend",
    "max_batch_size",
    "input",
    "output",
    "dynamic_batching",
    "instance_group",
    "optimization",
    "parameters",
    "version_policy",
    "default_model_filename",
    "model_warmup",
}
"""Top-level fields in use. Left out on purpose: ``response_cache`` (its key ignores request parameters, and it stores
errors), ``platform`` (the old form of ``backend``), decoupled policies, sequence batching."""

ONNX_PARAMETERS: Final = DOCUMENTED_PARAMETERS | OWN_PARAMETERS.keys()
PIPELINE_PARAMETERS: Final = {
    "FORCE_CPU_ONLY_INPUT_TENSORS",
    "EXECUTION_ENV_PATH",
    "cache_size",
    "decode_seconds",
    "decoders",
    "most_processes",
    "nice",
}
"""Two of Triton's Python backend, one that the embedded server reads before it loads a pipeline, and those that our
pipelines read themselves; a pipeline may have any."""

SMALLEST_PIPELINE_BATCH: Final = 8


def check_config(text: str) -> list[str]:
    """Return what is wrong with the ``config.pbtxt`` *text*, one line each; nothing when all is well."""
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        return [f"Triton's model_config.proto does not parse it: {error}"]
    return [*_common(text, config), *(_onnx(config) if config.backend == "onnxruntime" else _pipeline(config))]


def _common(text: str, config: Any) -> Iterator[str]:
    if not text.startswith("#"):
        yield "the first line must be a comment that says what goes in and out"
    if config.backend not in {"onnxruntime", "python"}:
        yield f"backend is '{config.backend}', must be onnxruntime or python"
    for field, _ in config.ListFields():
        if field.name not in FIELDS:
            yield f"field {field.name} is not in use here"
    if not config.instance_group:
        yield "instance_group is missing; the default is two copies on a CPU"
    for group in config.instance_group:
        if group.kind not in {group.KIND_CPU, group.KIND_GPU} or group.count < 1:
            yield "every instance_group needs a kind, KIND_CPU or KIND_GPU, and a count"
    pipeline_or_gpu = config.backend == "python" or any(group.kind == group.KIND_GPU for group in config.instance_group)
    if config.max_batch_size > 1 and not config.HasField("dynamic_batching") and pipeline_or_gpu:
        yield "max_batch_size without dynamic_batching: requests would not be joined"
    for key, value in config.parameters.items():
        if not value.string_value:
            yield f"parameter {key} has no string_value"


def _onnx(config: Any) -> Iterator[str]:
    for key in sorted(config.parameters.keys() - ONNX_PARAMETERS):
        yield f"parameter {key} is neither documented for the ONNX Runtime backend nor ours"
    optimization = config.optimization
    for field, _ in optimization.ListFields():
        if field.name not in {"graph", "execution_accelerators"}:
            yield f"optimization.{field.name} is not in use here"
    if optimization.execution_accelerators.cpu_execution_accelerator:
        # A config with `openvino` there failed to load in NGC 25.02 (onnxruntime_backend issue 300).
        yield "cpu_execution_accelerator does not load everywhere; use the parameter embedded_accelerator"
    if any(group.kind == group.KIND_GPU for group in config.instance_group):
        yield from _on_gpu(config)
    data = json_format.MessageToDict(config, preserving_proto_field_name=True)
    kinds = {"GPU" if group.kind == group.KIND_GPU else "CPU" for group in config.instance_group}
    for kind in sorted(kinds):
        warnings: list[str] = []
        try:
            read_settings(data, kind=kind, warn=warnings.append)
        except ConfigError as error:
            yield str(error)


def _on_gpu(config: Any) -> Iterator[str]:
    values = {key: value.string_value for key, value in config.parameters.items()}
    if any(group.kind != group.KIND_GPU or group.count != 1 for group in config.instance_group):
        yield "one process on each GPU and no other: each holds all sessions"
    if values.get("cudnn_conv_algo_search") != "1":
        yield "cudnn_conv_algo_search must be 1: 2 computes in a fallback, 0 searches for every shape"
    if int(values.get("gpu_mem_limit", "0")) <= 0:
        yield "gpu_mem_limit is missing: nothing would bound the memory"
    try:
        shapes = parse(values.get("shapes", ""))
    except ValueError as error:
        yield f"a session that sees two shapes prepares its kernels anew: {error}"
        return
    if max(shape[0] for shape in shapes) != config.max_batch_size:
        yield "the largest batch of the shapes must be max_batch_size"
    dims = list(config.input[0].dims)
    if any(size not in (-1, given) for shape in shapes for size, given in zip(dims, shape[1:], strict=True)):
        yield "a shape does not fit the dims of the input"


def _pipeline(config: Any) -> Iterator[str]:
    for key in sorted(config.parameters.keys() - PIPELINE_PARAMETERS):
        yield f"parameter {key} is neither documented for the Python backend nor ours"
    if config.max_batch_size < SMALLEST_PIPELINE_BATCH:
        yield f"max_batch_size is {config.max_batch_size}, a pipeline needs at least {SMALLEST_PIPELINE_BATCH}"
    if not config.input or not config.output:
        yield "a pipeline must state its inputs and outputs"
    if config.HasField("optimization"):
        yield "optimization has no effect on a pipeline"
