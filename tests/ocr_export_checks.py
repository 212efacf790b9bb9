"""What every exported PP-OCR version must look like."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import onnx
from onnx import TensorProto

from immich_triton.cli import export_ocr
from immich_triton.export import onnx_graph
from immich_triton.export.ocr.sources import VERSIONS
from immich_triton.export.repository import sha256

CHARACTERS = {"v4": 6623, "v5": 18383, "v6": 18708, "v5+v6": 18708}
"""How many each dictionary has."""


def expect_networks(models: Path) -> None:
    """Expect dynamic axes and folded outputs."""
    detector = onnx.load(models / "ocr_det" / "1" / "model.onnx", load_external_data=False).graph
    recognizer = onnx.load(models / "ocr_rec" / "1" / "model.onnx", load_external_data=False).graph
    assert _describe(detector.input[0]) == ("x", TensorProto.UINT8, ["batch", "height", "width", 3])
    assert _describe(detector.output[0]) == ("text", TensorProto.FLOAT, ["batch", 1, "height", "width"])
    assert _describe(recognizer.input[0]) == ("x", TensorProto.FLOAT, ["batch", 3, 48, "width"])
    assert [_describe(output) for output in recognizer.output] == [
        ("indices", TensorProto.INT32, ["batch", "steps"]),
        ("scores", TensorProto.FLOAT, ["batch", "steps"]),
        ("alternatives", TensorProto.FLOAT, ["batch", "steps", 4]),
    ]
    assert not [node for node in detector.node if node.op_type == "ConvTranspose"]


def expect_dictionary(version: str, models: Path) -> None:
    """Expect the dictionary of *version* in the recogniser."""
    characters = onnx_graph.metadata(onnx.load(models / "ocr_rec" / "1" / "model.onnx", load_external_data=False))[
        "character"
    ].split("\n")
    assert len(characters) == CHARACTERS[version]
    assert {"中", "国", "A", "9"} <= set(characters)


def expect_route(models: Path) -> None:
    """Expect a route to the two networks, and nothing else in the repository."""
    route = tomllib.loads((models / "ocr_rec" / "route.toml").read_text(encoding="utf-8"))
    assert route["task"] == "ocr"
    assert route["names"] == list(export_ocr.NAMES)
    assert route["weights_sha256"] == sha256(*(models / name / "1/model.onnx" for name in ("ocr_det", "ocr_rec")))
    (pipeline,) = route["pipelines"]
    assert pipeline["models"] == ["ocr_det", "ocr_rec"]
    assert pipeline["types"] == ["detection", "recognition"]
    assert sorted(path.name for path in models.iterdir()) == ["ocr", "ocr_det", "ocr_rec"]


def expect_record(version: str, models: Path) -> None:
    """Expect a record of *version* and of the files that it was made from."""
    record = json.loads((models / "ocr_rec" / "export.json").read_text(encoding="utf-8"))
    assert record["version"] == version
    assert record["sources"] == {member.path: member.sha256 for _, member in VERSIONS[version].members}


def _describe(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
