"""Rewrites the ONNX graphs of an InsightFace pack: pixels in, and a batch axis all the way through.

The packs' detectors were exported for one image: their heads end in ``permute(2, 3, 0, 1).reshape(-1, C)``, which
shuffles the images of a batch into each other (https://github.com/deepinsight/insightface/pull/1781 mended the export
script, but no pack was exported anew).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from immich_pipelines import faces_detection, faces_recognition
from immich_triton.export.onnx_graph import GraphError, rename_output
from immich_triton.export.sessions import cpu_session

_PASSED = {"Reshape", "Sigmoid", "Identity", "Cast"}
"""Operators that may stand between a head's Transpose and the graph's output."""


def detector(original: onnx.ModelProto) -> onnx.ModelProto:
    """Return SCRFD with input ``pixels`` UINT8 [batch, 640, 640, 3] and the outputs of `faces_detection.OUTPUTS`.

    *original* takes one normalised image [1, 3, H, W] and gives nine outputs: scores, boxes and landmarks, each for
    the strides 8, 16 and 32. Raises `GraphError` on anything else.
    """
    model = _copy(original)
    graph = model.graph
    if len(graph.output) != len(faces_detection.OUTPUTS):
        raise GraphError(f"the detector has {len(graph.output)} outputs instead of 9: is it an SCRFD with landmarks?")
    _scale_by_factors(model)
    producers = {name: node for node in graph.node for name in node.output}
    new_names = {}
    for output, (name, (_, size)) in zip(graph.output, faces_detection.OUTPUTS.items(), strict=True):
        _batch_head(graph, producers, output.name, size)
        new_names[output.name] = name
    _rename(graph, new_names)
    _set_outputs(graph, {name: ["batch", *shape] for name, shape in faces_detection.OUTPUTS.items()})
    # SCRFD's normalisation, as insightface.model_zoo.scrfd states it.
    _take_pixels(graph, faces_detection.INPUT, faces_detection.SIDE, mean=127.5, std=128.0)
    return _finish(model)


def recognizer(original: onnx.ModelProto, *, mean: float, std: float) -> onnx.ModelProto:
    """Return ArcFace with input ``pixels`` UINT8 [batch, 112, 112, 3] and output ``embedding`` FP32 [batch, 512].

    *mean* and *std* are what *original* expects its input normalised with, 0 and 1 if it does that itself
    (``insightface.model_zoo.arcface_onnx.ArcFaceONNX`` tells). Raises `GraphError` on an unexpected graph.
    """
    model = _copy(original)
    graph = model.graph
    dimension = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    if dimension != faces_recognition.DIMENSION:
        raise GraphError(f"the recogniser gives {dimension} numbers; Immich stores {faces_recognition.DIMENSION}")
    rename_output(model, faces_recognition.OUTPUT, ["batch", faces_recognition.DIMENSION])
    _take_pixels(graph, faces_recognition.INPUT, faces_recognition.SIDE, mean=mean, std=std)
    return _finish(model)


def _batch_head(graph: onnx.GraphProto, producers: Mapping[str, onnx.NodeProto], output: str, size: int) -> None:
    """Let the head that ends in *output* give [batch, candidates, *size*] instead of [candidates, size]."""
    node = producers.get(output)
    reshapes = []
    while node is not None and node.op_type in _PASSED:
        if node.op_type == "Reshape":
            reshapes.append(node)
        node = producers.get(node.input[0])
    transpose = node
    if transpose is None or transpose.op_type != "Transpose" or not reshapes:
        raise GraphError(f"the detector's output {output} does not come from a Transpose and a Reshape")
    order = helper.get_attribute_value(transpose.attribute[0])
    if list(order) not in ([2, 3, 0, 1], [0, 2, 3, 1]):
        raise GraphError(f"the detector's output {output} comes from a Transpose in the unexpected order {list(order)}")
    transpose.attribute[0].CopyFrom(helper.make_attribute("perm", [0, 2, 3, 1]))
    shape = f"pixels_shape_{output}"
    graph.initializer.append(numpy_helper.from_array(np.array([0, -1, size], np.int64), shape))
    for reshape in reshapes:
        reshape.input[1] = shape


def _scale_by_factors(model: onnx.ModelProto) -> None:
    """Let every Resize multiply height and width instead of producing a fixed shape, which has the batch size in it.

    Exports of one size carry the shape as a constant, with batch 1: the other images of a batch would vanish.
    """
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    shapes = _shapes_inside(model, [name for node in resizes for name in (node.input[0], node.output[0])])
    for node in resizes:
        before, after = shapes[node.input[0]], shapes[node.output[0]]
        factors = [1.0, 1.0, after[2] / before[2], after[3] / before[3]]
        name = f"factors_{node.output[0]}"
        model.graph.initializer.append(numpy_helper.from_array(np.array(factors, np.float32), name))
        node.input[:] = [node.input[0], node.input[1], name]


def _shapes_inside(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inner tensors while the detector *model* looks at one image."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = list(dict.fromkeys(names))
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = cpu_session(probe.SerializeToString())
    blank = np.zeros((1, 3, faces_detection.SIDE, faces_detection.SIDE), np.float32)
    values = session.run(names, {session.get_inputs()[0].name: blank})
    return {name: value.shape for name, value in zip(names, values, strict=True)}


def _take_pixels(graph: onnx.GraphProto, name: str, side: int, *, mean: float, std: float) -> None:
    """Replace the graph's one input, [batch, 3, side, side], by RGB pixels UINT8 [batch, side, side, 3]."""
    parameters = {initializer.name for initializer in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in parameters]
    if len(inputs) != 1:
        raise GraphError(f"the model has {len(inputs)} inputs instead of one")
    last = f"{name}_float"
    nodes = [helper.make_node("Cast", [name], [last], to=onnx.TensorProto.FLOAT)]
    # Multiplied by the reciprocal, as OpenCV's blobFromImages does.
    for operator, value, neutral in (("Sub", mean, 0.0), ("Mul", 1.0 / std, 1.0)):
        if value != neutral:
            constant, result = f"{name}_{operator}_by", f"{name}_{operator}"
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), constant))
            nodes.append(helper.make_node(operator, [last, constant], [result]))
            last = result
    # Last, right before the first convolution: that one wants channels last in OpenVINO, which then moves nothing. With
    # the Transpose first it turned the pixels twice, for 4 % of the detector's time.
    nodes.append(helper.make_node("Transpose", [last], [f"{name}_nchw"], perm=[0, 3, 1, 2]))
    nodes[-1].output[0] = inputs[0]
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["batch", side, side, 3]))


def _rename(graph: onnx.GraphProto, new_names: Mapping[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            for position, value in enumerate(values):
                values[position] = new_names.get(value, value)


def _set_outputs(graph: onnx.GraphProto, outputs: Mapping[str, Iterable[int | str]]) -> None:
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()
    )


def _copy(original: onnx.ModelProto) -> onnx.ModelProto:
    # The prefix keeps the names free that this module gives.
    model = compose.add_prefix(original, "original/")
    # Recorded shapes of inner tensors say batch 1.
    del model.graph.value_info[:]
    return model


def _finish(model: onnx.ModelProto) -> onnx.ModelProto:
    _drop_unused_nodes(model.graph)
    used = {name for node in model.graph.node for name in node.input}
    kept = [initializer for initializer in model.graph.initializer if initializer.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    # Since version 4 an initializer need not be an input as well.
    model.ir_version = max(model.ir_version, 4)
    onnx.checker.check_model(model)
    return model


def _drop_unused_nodes(graph: onnx.GraphProto) -> None:
    needed = {value.name for value in graph.output}
    kept = []
    # Backwards: the nodes of an ONNX graph stand in the order of computation.
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
