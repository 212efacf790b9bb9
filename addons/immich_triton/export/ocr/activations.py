"""What the layers of a network see when it computes: ranges and means of their inputs, channel by channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from immich_triton.export.ocr.graph import Graph
from immich_triton.export.sessions import cpu_session

Array = npt.NDArray[Any]

_BUT_CHANNELS: Final = [0, 2, 3]


@dataclass(frozen=True)
class Steps:
    """How the channels of a map become bytes: round(x / *step*) + *zero*, of uint8, or of int8 for zeros of int8.

    Both are [C], *step* float32.
    """

    step: Array
    zero: Array


def as_bytes(graph: Graph, value: str, steps: Steps, name: str) -> str:
    """Add the nodes *name*_… that make bytes of *value*, and floats of these for who does not multiply bytes."""
    scale = [graph.add_constant(f"{name}_{key}", each) for key, each in vars(steps).items()]
    one = graph.add_constant(f"{name}_one", np.float32(1))
    nothing = graph.add_constant(f"{name}_nothing", steps.zero.dtype.type(0))
    graph.add("QuantizeLinear", [value, *scale], f"{name}_bytes", axis=1)
    return graph.add("DequantizeLinear", [f"{name}_bytes", one, nothing], f"{name}_numbers")


@dataclass(frozen=True)
class Seen:
    """The values of a map [N, C, H, W] over all inputs: *low*, *high* and *mean* are [C].

    *single*: it never had more than one pixel.
    """

    low: Array
    high: Array
    mean: Array
    single: bool


def ranges(model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Array]) -> dict[str, Seen]:
    """Return what the maps *names* of *model* hold when it computes *inputs*, one after the other."""

    def measure(graph: Graph, name: str) -> list[str]:
        measures = [
            graph.add(kind, [name], f"{name}_{kind}", axes=_BUT_CHANNELS, keepdims=0)
            for kind in ("ReduceMin", "ReduceMax", "ReduceMean")
        ]
        return [*measures, graph.add("Shape", [name], f"{name}_shape")]

    runs = list(_runs(model, names, measure, inputs))
    found = {}
    for name in names:
        lows, highs, means, shapes = zip(*(run[name] for run in runs), strict=True)
        pixels = np.prod(np.array(shapes)[:, 2:], axis=1)
        weights = pixels * np.array(shapes)[:, 0]
        mean = np.average(np.array(means, np.float64), axis=0, weights=weights)
        found[name] = Seen(np.min(lows, axis=0), np.max(highs, axis=0), mean, bool((pixels == 1).all()))
    return found


def mean_bytes(model: onnx.ModelProto, steps: Mapping[str, Steps], inputs: Sequence[Array]) -> dict[str, Array]:
    """Return the mean byte of each channel, [C], of the maps that *steps* names, over the same *inputs*."""

    def measure(graph: Graph, name: str) -> list[str]:
        numbers = as_bytes(graph, name, steps[name], name)
        mean = graph.add("ReduceMean", [numbers], f"{name}_mean", axes=_BUT_CHANNELS, keepdims=0)
        return [mean, graph.add("Shape", [name], f"{name}_shape")]

    runs = list(_runs(model, list(steps), measure, inputs))
    found = {}
    for name in steps:
        means, shapes = zip(*(run[name] for run in runs), strict=True)
        weights = np.prod(np.array(shapes)[:, [0, 2, 3]], axis=1)
        found[name] = np.average(np.array(means, np.float64), axis=0, weights=weights)
    return found


def _runs(
    model: onnx.ModelProto,
    names: Sequence[str],
    measure: Callable[[Graph, str], list[str]],
    inputs: Sequence[Array],
) -> Iterator[dict[str, list[Array]]]:
    """Yield for each of *inputs* what *measure* lets the network tell of each map."""
    if not names:
        return
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    measures = {name: measure(graph, name) for name in names}
    told = [output for outputs in measures.values() for output in outputs]
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=output) for output in told)
    session = cpu_session(copy.SerializeToString(), as_written=True)
    (given,) = session.get_inputs()
    for each in inputs:
        values = dict(zip(told, session.run(told, {given.name: each}), strict=True))
        yield {name: [values[output] for output in outputs] for name, outputs in measures.items()}
