from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from onnxruntime_backend.batching import Job, Result, run_batch
from onnxruntime_backend.engines import Array, BadRequestError, Engine, load_engine
from onnxruntime_backend.settings import Settings
from triton import tiny_models


def ones(rows: int, columns: int = 3) -> Array:
    return np.ones((rows, columns), dtype=np.float32)


@pytest.fixture
def run_size(tmp_path: Path) -> Engine:
    return load_engine(tiny_models.run_size(tmp_path / "model.onnx"), Settings())


@pytest.fixture
def lookup(tmp_path: Path) -> Engine:
    return load_engine(tiny_models.lookup(tmp_path / "model.onnx"), Settings())


def outputs(result: Result) -> dict[str, Array]:
    assert isinstance(result, dict), result
    return result


def test_requests_of_any_batch_size_become_one_run(run_size: Engine) -> None:
    values = [np.full((rows, 3), rows, dtype=np.float32) for rows in (1, 3, 2)]

    results = run_batch(run_size, [Job({"x": value}, ["size", "double"]) for value in values], batched=True)

    for value, result in zip(values, results, strict=True):
        np.testing.assert_array_equal(outputs(result)["double"], 2 * value)
        assert outputs(result)["size"].tolist() == [6] * len(value)


def test_requests_of_different_shapes_are_joined_by_shape_and_keep_their_order(run_size: Engine) -> None:
    shapes = [(1, 3), (1, 5), (2, 3), (1, 5)]

    results = run_batch(run_size, [Job({"x": ones(*shape)}, ["size", "double"]) for shape in shapes], batched=True)

    assert [outputs(result)["double"].shape for result in results] == shapes
    assert [outputs(result)["size"].tolist() for result in results] == [[3], [2], [3, 3], [2]]


def test_each_request_gets_only_the_outputs_it_asked_for(run_size: Engine) -> None:
    asked = [["size"], ["double"], ["double", "size"]]

    results = run_batch(run_size, [Job({"x": ones(1)}, names) for names in asked], batched=True)

    assert [list(outputs(result)) for result in results] == asked
    assert outputs(results[0])["size"].tolist() == [3]


def test_slices_are_not_copied(run_size: Engine) -> None:
    results = run_batch(run_size, [Job({"x": ones(2)}, ["double"]) for _ in range(3)], batched=True)

    parts = [outputs(result)["double"] for result in results]
    assert parts[0].base is not None
    assert all(part.base is parts[0].base and part.flags.c_contiguous for part in parts)


def test_without_a_batch_axis_every_request_is_a_run(run_size: Engine) -> None:
    results = run_batch(run_size, [Job({"x": ones(2)}, ["size"]) for _ in range(2)], batched=False)

    assert [outputs(result)["size"].tolist() for result in results] == [[2, 2], [2, 2]]


def test_an_empty_batch_is_answered_with_empty_outputs(run_size: Engine) -> None:
    results = run_batch(run_size, [Job({"x": ones(0)}, ["double"]), Job({"x": ones(2)}, ["double"])], batched=True)

    assert [outputs(result)["double"].shape for result in results] == [(0, 3), (2, 3)]
    (alone,) = run_batch(run_size, [Job({"x": ones(0)}, ["double"])], batched=True)
    assert outputs(alone)["double"].shape == (0, 3)


def test_a_request_that_breaks_the_run_fails_alone(lookup: Engine) -> None:
    indices = [[0], [99], [2, 3]]

    good, bad, also_good = run_batch(lookup, [Job({"x": np.array(index)}, ["y"]) for index in indices], batched=True)

    np.testing.assert_array_equal(outputs(good)["y"], [[0, 1]])
    np.testing.assert_array_equal(outputs(also_good)["y"], [[4, 5], [6, 7]])
    assert isinstance(bad, Exception)
    assert "99" in str(bad)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"x": np.ones((1, 2, 3), dtype=np.float32)}, r"input 'x' has shape \[1, 2, 3\], the model takes \[-1, -1\]"),
        ({}, "input 'x' is missing"),
        ({"x": ones(1), "z": ones(1)}, "the model has no input 'z'"),
    ],
)
def test_a_request_that_does_not_fit_is_the_callers_fault(
    run_size: Engine, inputs: dict[str, Array], reason: str
) -> None:
    bad, good = run_batch(run_size, [Job(inputs, ["size"]), Job({"x": ones(1)}, ["size"])], batched=True)

    assert outputs(good)["size"].tolist() == [1]
    with pytest.raises(BadRequestError, match=reason):
        raise bad if isinstance(bad, Exception) else AssertionError(bad)


def test_inputs_of_unequal_batch_size_are_refused(tmp_path: Path) -> None:
    path = tiny_models.save(
        tmp_path / "model.onnx",
        [helper.make_node("Concat", ["a", "b"], ["y"], axis=0)],
        dict.fromkeys(("a", "b"), (tiny_models.FLOAT, ("n", 3))),
        {"y": (tiny_models.FLOAT, ("m", 3))},
    )

    (result,) = run_batch(load_engine(path, Settings()), [Job({"a": ones(1), "b": ones(2)}, ["y"])], batched=True)

    assert isinstance(result, BadRequestError)
    assert "batch size: [1, 2]" in str(result)


def test_a_model_without_a_batch_axis_says_what_to_change(tmp_path: Path) -> None:
    path = tiny_models.save(
        tmp_path / "model.onnx",
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        {"x": (tiny_models.FLOAT, ("n", 3))},
        {"y": (tiny_models.FLOAT, ())},
    )

    results = run_batch(load_engine(path, Settings()), [Job({"x": ones(1)}, ["y"])] * 2, batched=True)

    assert [isinstance(result, ValueError) and "set max_batch_size: 0" in str(result) for result in results] == [
        True
    ] * 2


def test_scalars_are_one_element_on_the_wire(tmp_path: Path) -> None:
    path = tiny_models.identity(tmp_path / "model.onnx", shape=())

    (result,) = run_batch(
        load_engine(path, Settings()), [Job({"x": np.array([5], dtype=np.float32)}, ["y"])], batched=False
    )

    assert outputs(result)["y"].tolist() == [5]
