"""The requests of one dynamic batch → as few runs as possible → one result, or one error, for each request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxruntime_backend.engines import Array, BadRequestError, Engine, TensorInfo

Result = dict[str, Array] | Exception


@dataclass(frozen=True)
class Job:
    """One request: its tensors (with the batch axis, if the model has one) and the outputs it asks for."""

    inputs: Mapping[str, Array]
    outputs: Sequence[str]


def run_batch(engine: Engine, jobs: Sequence[Job], *, batched: bool) -> list[Result]:
    """Run *jobs* and return, in their order, outputs by name or the error of that job alone.

    When *batched* (``max_batch_size`` > 0), jobs with equal shapes beyond axis 0 are concatenated and run together.
    If a joint run fails, its jobs run one by one, so that only the guilty one fails.
    """
    results: list[Result] = [{} for _ in jobs]
    groups: dict[object, list[int]] = {}
    inputs = {tensor.name: tensor for tensor in engine.inputs}
    fitting: dict[int, Job] = {}
    for index, job in enumerate(jobs):
        try:
            fitting[index] = _fit(job, inputs, batched=batched)
        except BadRequestError as error:
            results[index] = error
        else:
            groups.setdefault(_key(job) if batched else index, []).append(index)
    for members in groups.values():
        for index, result in zip(members, _run_group(engine, [fitting[i] for i in members], batched), strict=True):
            results[index] = result
    return results


def _fit(job: Job, tensors: Mapping[str, TensorInfo], *, batched: bool) -> Job:
    if missing := tensors.keys() - job.inputs.keys():
        # OpenVINO would silently take the tensor of the run before.
        raise BadRequestError(f"input '{min(missing)}' is missing")
    if unknown := job.inputs.keys() - tensors.keys():
        raise BadRequestError(f"the model has no input '{min(unknown)}'")
    inputs = {name: _fit_tensor(value, tensors[name], batched=batched) for name, value in job.inputs.items()}
    if batched and len(sizes := {value.shape[0] for value in inputs.values()}) > 1:
        raise BadRequestError(f"inputs differ in their batch size: {sorted(sizes)}")
    return Job(inputs, job.outputs)


def _fit_tensor(value: Array, tensor: TensorInfo, *, batched: bool) -> Array:
    if tensor.shape is None:
        return value
    if not batched and not tensor.shape and value.shape == (1,):
        return value.reshape(())  # Triton has no scalars: they are [1] on the wire
    fits = len(value.shape) == len(tensor.shape) and all(
        expected in {-1, size} for expected, size in zip(tensor.shape, value.shape, strict=True)
    )
    if not fits:
        raise BadRequestError(
            f"input '{tensor.name}' has shape {list(value.shape)}, the model takes {list(tensor.shape)}"
        )
    return value


def _key(job: Job) -> object:
    return frozenset((name, value.dtype.str, value.shape[1:]) for name, value in job.inputs.items())


def _run_group(engine: Engine, jobs: Sequence[Job], batched: bool) -> list[Result]:
    try:
        return list(_run_joined(engine, jobs, batched))
    except Exception as error:  # noqa: BLE001 - whatever fails becomes the answer of its request
        if len(jobs) == 1:
            return [error]
    return [result for job in jobs for result in _run_group(engine, [job], batched)]


def _run_joined(engine: Engine, jobs: Sequence[Job], batched: bool) -> list[dict[str, Array]]:
    names = list(dict.fromkeys(name for job in jobs for name in job.outputs))
    if len(jobs) == 1:
        feed = jobs[0].inputs
    else:
        feed = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
    values = dict(zip(names, engine.run(names, feed), strict=True))
    if not batched:
        return [{name: value.reshape(value.shape or (1,)) for name, value in values.items()}]
    counts = [next(iter(job.inputs.values())).shape[0] for job in jobs]
    total = sum(counts)
    for name, value in values.items():
        if value.ndim == 0 or value.shape[0] != total:
            raise ValueError(
                f"output '{name}' has shape {list(value.shape)} for a batch of {total}: "
                "the model has no batch axis there; set max_batch_size: 0"
            )
    if len(jobs) == 1:
        return [values]
    ends = np.cumsum(counts).tolist()
    return [
        # Slices of the first axis stay contiguous: no copy.
        {name: values[name][end - count : end] for name in job.outputs}
        for job, count, end in zip(jobs, counts, ends, strict=True)
    ]
