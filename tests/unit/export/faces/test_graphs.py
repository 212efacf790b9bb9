"""Pixels in, and a batch axis all the way through, on models of a few weights; real ones: test_export_faces.py."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny_faces
from onnx import TensorProto, helper

from immich_pipelines.faces_detection import OUTPUTS, SIDE
from immich_triton.export.faces import graphs
from immich_triton.export.onnx_graph import GraphError
from immich_triton.export.sessions import cpu_session


def pixels(count: int, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def normalised(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], mean: float, std: float) -> dict[str, object]:
    return {"x": ((image.transpose(2, 0, 1)[np.newaxis].astype(np.float32) - mean) / std).astype(np.float32)}


def test_each_image_of_a_batch_keeps_its_own_answer() -> None:
    original = tiny_faces.detector()
    images = pixels(3, SIDE)
    found = cpu_session(graphs.detector(original).SerializeToString()).run(list(OUTPUTS), {"pixels": images})
    alone = cpu_session(original.SerializeToString())
    for index, image in enumerate(images):
        for ours, theirs in zip(found, alone.run(None, normalised(image, 127.5, 128)), strict=True):
            np.testing.assert_allclose(ours[index], theirs, atol=1e-5)


def test_what_goes_in_and_comes_out_has_names_and_shapes() -> None:
    model = graphs.detector(tiny_faces.detector())
    (given,) = model.graph.input
    assert (given.name, given.type.tensor_type.elem_type) == ("pixels", TensorProto.UINT8)
    assert [output.name for output in model.graph.output] == list(OUTPUTS)
    shapes = [
        [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim] for one in model.graph.output
    ]
    assert shapes == [["batch", *shape] for shape in OUTPUTS.values()]
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used, "what no one needs is gone"


@pytest.mark.parametrize(("mean", "std"), [(127.5, 127.5), (0.0, 1.0), (0.0, 255.0)])
def test_a_recognizer_gets_what_its_pack_asks_for(mean: float, std: float) -> None:
    original, faces = tiny_faces.recognizer(), pixels(4, 112)
    model = graphs.recognizer(original, mean=mean, std=std)
    (found,) = cpu_session(model.SerializeToString()).run(["embedding"], {"pixels": faces})
    for index, face in enumerate(faces):
        (expected,) = cpu_session(original.SerializeToString()).run(None, normalised(face, mean, std))
        np.testing.assert_allclose(found[index], expected[0], rtol=1e-4, atol=1e-3)
    assert {node.op_type for node in model.graph.node} & {"Sub", "Mul"} == {
        *(["Sub"] if mean else []),
        *(["Mul"] if std != 1 else []),
    }


def test_channels_move_to_the_front_right_before_the_network() -> None:
    """Where the pixels are floats already: OpenVINO's first convolution takes them as they lie, and moves nothing."""
    recognizer = graphs.recognizer(tiny_faces.recognizer(), mean=127.5, std=127.5)
    for model in (graphs.detector(tiny_faces.detector()), recognizer):
        assert [node.op_type for node in model.graph.node][:4] == ["Cast", "Sub", "Mul", "Transpose"]


def test_the_original_stays_as_it_is() -> None:
    original = tiny_faces.detector()
    before = original.SerializeToString(deterministic=True)
    graphs.detector(original)
    assert original.SerializeToString(deterministic=True) == before


def test_models_of_another_kind_are_refused() -> None:
    with pytest.raises(GraphError, match="the recogniser gives 128 numbers; Immich stores 512"):
        graphs.recognizer(tiny_faces.recognizer(128), mean=0, std=1)
    with pytest.raises(GraphError, match="has 1 outputs instead of 9"):
        graphs.detector(tiny_faces.recognizer())
    two = tiny_faces.recognizer()
    two.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    with pytest.raises(GraphError, match="the model has 2 inputs instead of one"):
        graphs.recognizer(two, mean=0, std=1)


@pytest.mark.parametrize(
    ("operator", "perm", "why"),
    [("Transpose", [0, 1, 3, 2], r"unexpected order \[0, 1, 3, 2\]"), ("Relu", None, "from a Transpose and a Reshape")],
)
def test_a_head_of_another_kind_is_refused(operator: str, perm: list[int] | None, why: str) -> None:
    model: onnx.ModelProto = tiny_faces.detector()
    node = next(node for node in model.graph.node if node.op_type == "Transpose")
    node.op_type = operator
    if perm:
        node.attribute[0].CopyFrom(helper.make_attribute("perm", perm))
    else:
        del node.attribute[:]
    with pytest.raises(GraphError, match=why):
        graphs.detector(model)
