"""Face models of a few weights in the shape of an InsightFace pack's, for tests of what the export does to them.

The detector sees one face in every image, in the same place; its scores follow the brightness a little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from immich_pipelines.faces_detection import ANCHORS, OUTPUTS, SIDE, STRIDES

Array = npt.NDArray[Any]

SIZES = {"score": 1, "bbox": 4, "kps": 10}


def detector(*, faces: bool = True) -> onnx.ModelProto:
    """Return an SCRFD for one image, with the heads of a pack: they have no batch axis. Or one that sees no face."""
    constants: dict[str, Array] = {
        "twice": np.array([1, 3, SIDE // 8, SIDE // 8]),  # with batch 1 in it, as in exports for one size
        "no_roi": np.zeros(0, np.float32),
        "no_scales": np.zeros(0, np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["x"], ["map_16"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("AveragePool", ["map_16"], ["map_32"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["map_16", "no_roi", "no_scales", "twice"], ["map_8"], mode="nearest"),
    ]
    outputs = []
    for kind, size in SIZES.items():
        for stride in STRIDES:
            end, channels, cells = f"{kind}_{stride}", ANCHORS * size, SIDE // stride
            bias = np.zeros((1, channels, cells, cells), np.float32)
            if kind == "score":
                bias -= 9
                if faces and stride == 16:
                    bias[0, 0, cells // 2, cells // 2] = 2
            else:
                # Distances from the cell, in strides: a box, and five points in it.
                bias += (
                    4
                    if kind == "bbox"
                    else np.tile(np.array([-2, -2, 2, -2, 0, 0, -1, 2, 1, 2]), ANCHORS)[:, np.newaxis, np.newaxis]
                )
            constants |= {
                f"{end}_weights": np.full((channels, 3, 1, 1), 0.01, np.float32),
                f"{end}_bias": bias.astype(np.float32),
                f"{end}_shape": np.array([-1, size]),
            }
            nodes += [
                helper.make_node("Conv", [f"map_{stride}", f"{end}_weights"], [f"{end}_conv"]),
                helper.make_node("Add", [f"{end}_conv", f"{end}_bias"], [f"{end}_map"]),
                helper.make_node("Transpose", [f"{end}_map"], [f"{end}_last"], perm=[2, 3, 0, 1]),
                helper.make_node("Reshape", [f"{end}_last", f"{end}_shape"], [f"{end}_flat"]),
                helper.make_node("Sigmoid" if kind == "score" else "Identity", [f"{end}_flat"], [end]),
            ]
            outputs.append(helper.make_tensor_value_info(end, TensorProto.FLOAT, list(OUTPUTS[end])))
    return _model(nodes, [1, 3, SIDE, SIDE], outputs, constants)


def recognizer(dimension: int = 512) -> onnx.ModelProto:
    """Return an ArcFace whose numbers follow the colours of four by four parts of the face."""
    random = np.random.default_rng(0)
    constants = {"weights": random.standard_normal((48, dimension)).astype(np.float32)}
    nodes = [
        helper.make_node("AveragePool", ["x"], ["parts"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["parts"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["out"]),
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", dimension])]
    return _model(nodes, ["n", 3, 112, 112], outputs, constants)


def photos() -> list[npt.NDArray[np.uint8]]:
    """Return two small images: no test that uses these models needs a real face."""
    noise = np.random.default_rng(5).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    return [noise, np.zeros((60, 60, 3), np.uint8)]


def save(folder: Path, *, faces: bool = True) -> tuple[Path, Path]:
    """Write both and return their files."""
    paths = folder / "detector.onnx", folder / "recognizer.onnx"
    onnx.save(detector(faces=faces), paths[0])
    onnx.save(recognizer(), paths[1])
    return paths


def _model(
    nodes: list[onnx.NodeProto],
    given: list[int | str],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, Array],
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
