"""Fills in what a config leaves out, from the ONNX file, and refuses what contradicts it.

By the rules of Triton's C++ backend, so that a config that loads here does not fail there for what it says of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from onnxruntime_backend.engines import TensorInfo, describe
from onnxruntime_backend.settings import ConfigError

DEFAULT_MAX_BATCH_SIZE: Final = 4
"""``max_batch_size`` of a model that can batch and whose config says none, as in the C++ backend."""

_SCRIPTS: Final = {
    "ocr_": "immich-triton export ocr",
    "cn_clip_": "immich-triton export clip",
    "face_": "immich-triton export faces",
}


def model_file(directory: Path, config: Mapping[str, Any]) -> Path:
    """Return the ONNX file in the version folder *directory*: ``default_model_filename``, or ``model.onnx``.

    Where that is a folder, the file is ``model.onnx`` in it. Raises `ConfigError` when there is no such file.
    """
    # Triton's Python backend takes the folder of the file for the version folder, so only the last part counts.
    path = directory / Path(config.get("default_model_filename") or "model.onnx").name
    if path.is_dir():
        path = path / "model.onnx"
    if not path.is_file():
        raise ConfigError(f"unable to find '{path}'; the models are made by {_made_by(config.get('name', ''))}")
    return path


def _made_by(model: str) -> str:
    for prefix, script in _SCRIPTS.items():
        if model.startswith(prefix):
            return script
    return "immich-triton export"


def complete(config: dict[str, Any], path: Path) -> None:
    """Add ``input``, ``output``, ``max_batch_size`` and ``dynamic_batching`` to *config* where they are missing.

    Does nothing when inputs and outputs are given. Raises `ConfigError` when the config wants batches from a model
    whose tensors have no dynamic first axis.
    """
    if config.get("input") and config.get("output"):
        return
    inputs, outputs = describe(path)
    if all((tensor.shape or ())[:1] == (-1,) for tensor in (*inputs, *outputs)):
        config["max_batch_size"] = config.get("max_batch_size") or DEFAULT_MAX_BATCH_SIZE
        schedulers = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")
        if config["max_batch_size"] > 1 and not any(key in config for key in schedulers):
            config["dynamic_batching"] = {}
    elif config.get("max_batch_size"):
        raise ConfigError("model does not support batching while non-zero max_batch_size is specified")
    config["input"] = config.get("input") or _tensors(inputs, batched=bool(config.get("max_batch_size")))
    config["output"] = config.get("output") or _tensors(outputs, batched=bool(config.get("max_batch_size")))


def _tensors(tensors: Sequence[TensorInfo], *, batched: bool) -> list[dict[str, Any]]:
    entries = []
    for tensor in tensors:
        if tensor.shape is None:
            raise ConfigError(f"the model does not say how many dimensions '{tensor.name}' has; state it in the config")
        dims = list(tensor.shape[1:] if batched else tensor.shape)
        entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.type, "dims": dims or [1]}
        if not dims and batched:
            # On the wire [batch, 1], for the model [batch]: Triton has no tensor without dims.
            entry["reshape"] = {"shape": []}
        entries.append(entry)
    return entries


def check(config: Mapping[str, Any], inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
    """Raise `ConfigError` when *config* (with inputs and outputs) does not describe a model with these tensors."""
    given = {entry["name"] for entry in config["input"]}
    if missing := [tensor.name for tensor in inputs if tensor.name not in given]:
        raise ConfigError(f"the config has no input '{missing[0]}', which the model needs")
    batched = bool(config.get("max_batch_size"))
    for kind, entries, tensors in (("input", config["input"], inputs), ("output", config["output"], outputs)):
        known = {tensor.name: tensor for tensor in tensors}
        for entry in entries:
            if entry["name"] not in known:
                raise ConfigError(
                    f"the model has no {kind} '{entry['name']}' of the config; it has {', '.join(sorted(known))}"
                )
            _check_tensor(kind, entry, known[entry["name"]], batched=batched)


def _check_tensor(kind: str, entry: Mapping[str, Any], tensor: TensorInfo, *, batched: bool) -> None:
    if entry["data_type"] != tensor.type:
        raise ConfigError(
            f"{kind} '{tensor.name}' is {entry['data_type']} in the config and {tensor.type} in the model"
        )
    reshape = entry.get("reshape")
    dims = [int(size) for size in (entry["dims"] if reshape is None else reshape.get("shape", []))]
    shape = [-1, *dims] if batched else dims
    if tensor.shape is None or (not tensor.shape and not batched and all(size == 1 for size in dims)):
        return  # of unknown rank; or a scalar, which is [1] on the wire
    # A size that the config leaves open may be fixed in what comes out: OpenVINO infers more than the file says.
    wider = {-1} if kind == "output" else set()
    fits = len(shape) == len(tensor.shape) and all(
        model in {-1, size} or size in wider for model, size in zip(tensor.shape, shape, strict=True)
    )
    if batched and tensor.shape[:1] != (-1,):
        fits = False
    if not fits:
        batch = ", batch axis included" if batched else ""
        raise ConfigError(
            f"{kind} '{tensor.name}' has shape {shape} in the config{batch}, {list(tensor.shape)} in the model"
        )
