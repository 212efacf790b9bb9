from typing import Any

import pytest
from onnxruntime_backend import settings
from onnxruntime_backend.settings import ConfigError, Settings, read_settings

from immich_pipelines.cpus import available_cpus
from immich_triton.core.paths import MODELS


def read(kind: str = "CPU", device_id: int = 0, config: dict[str, Any] | None = None, **parameters: str) -> Settings:
    values = {key.replace("__", "."): {"string_value": value} for key, value in parameters.items()}
    return read_settings(
        {**(config or {}), "parameters": values},
        kind=kind,
        device_id=device_id,
        warn=pytest.fail,
    )


def accelerator(place: str, name: str, **parameters: str) -> dict[str, Any]:
    return {"optimization": {"execution_accelerators": {place: [{"name": name, "parameters": parameters}]}}}


def test_defaults() -> None:
    assert read_settings({}, warn=pytest.fail) == Settings(intra_op_threads=available_cpus())


def test_zero_threads_means_all_cpus() -> None:
    assert read(intra_op_thread_count="0").intra_op_threads == available_cpus() >= 1


def test_documented_parameters() -> None:
    result = read(
        intra_op_thread_count="3",
        inter_op_thread_count="2",
        execution_mode="1",
        enable_mem_arena="0",
        enable_mem_pattern="false",
        session__use_device_allocator_for_initializers="1",
        memory__enable_memory_arena_shrinkage="cpu:0",
    )

    assert (result.intra_op_threads, result.inter_op_threads, result.parallel) == (3, 2, True)
    assert not result.mem_arena
    assert not result.mem_pattern
    assert result.session_entries == {"session.use_device_allocator_for_initializers": "1"}
    assert result.run_entries == {"memory.enable_memory_arena_shrinkage": "cpu:0"}


@pytest.mark.parametrize(("level", "meaning"), [(-1, "basic"), (0, "all"), (1, "extended"), (2, "disabled")])
def test_graph_level_means_what_the_cpp_backend_documents(level: int, meaning: str) -> None:
    assert read(config={"optimization": {"graph": {"level": level}}}).level == meaning


def test_own_parameters() -> None:
    result = read(embedded_accelerator="openvino", nice="10", allow_spinning="1", inference_precision="bf16")

    assert (result.engine, result.nice, result.allow_spinning, result.inference_precision) == (
        "openvino",
        10,
        True,
        "bf16",
    )


def test_openvino_can_also_be_named_as_the_cpp_backend_does() -> None:
    assert read(config=accelerator("cpu_execution_accelerator", "openvino")).engine == "openvino"


def test_a_gpu_gets_the_search_that_is_fast_and_an_arena_that_grows_as_needed() -> None:
    result = read(kind="GPU", device_id=1)

    assert result.device_id == 1
    assert result.cuda == {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


@pytest.mark.parametrize("kind", ["CPU", "GPU"])
def test_shapes_are_read_for_both(kind: str) -> None:
    config = {"max_batch_size": 4}
    result = read(kind, config=config, shapes="1x3x8x8 4x3x8x8", shared_arena="0")
    assert result.shapes == ((1, 3, 8, 8), (4, 3, 8, 8))
    assert not result.shared_arena
    assert read(kind, config=config).shapes == ()


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="parameter 'shapes': 'big' is no shape; shapes look like 8x3x48x320"):
        read(config={"max_batch_size": 4}, shapes="big")
    with pytest.raises(ConfigError, match="'shapes' needs a model that takes batches: set max_batch_size"):
        read(shapes="1x3")


def test_cuda_settings_of_the_config_win() -> None:
    result = read(
        kind="GPU",
        config=accelerator("gpu_execution_accelerator", "cuda", cudnn_conv_use_max_workspace="0"),
        cudnn_conv_algo_search="0",
        arena_extend_strategy="0",
        gpu_mem_limit="1000",
    )

    assert result.cuda == {
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "arena_extend_strategy": "kNextPowerOfTwo",
        "gpu_mem_limit": "1000",
        "cudnn_conv_use_max_workspace": "0",
    }


@pytest.mark.parametrize("kind", ["CPU", "MODEL", "AUTO"])
def test_only_gpu_instances_use_the_gpu(kind: str) -> None:
    assert read(kind=kind).device_id is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("intra_op_thread_count", "-1"),
        ("intra_op_thread_count", "two"),
        ("execution_mode", "2"),
        ("enable_mem_arena", "maybe"),
        ("embedded_accelerator", "tensorrt"),
        ("nice", "20"),
        ("allow_spinning", ""),
        ("inference_precision", "int8"),
    ],
)
def test_wrong_values_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'.*got '{value}'"):
        read_settings({"parameters": {key: {"string_value": value}}}, warn=pytest.fail)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("CPU", accelerator("cpu_execution_accelerator", "dnnl")),
        ("GPU", accelerator("gpu_execution_accelerator", "tensorrt")),
    ],
)
def test_unknown_accelerators_are_refused(kind: str, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="unknown Execution Accelerator"):
        read(kind=kind, config=config)


def test_an_unknown_parameter_is_a_warning() -> None:
    warnings: list[str] = []

    read_settings({"parameters": {"intra_threads": {"string_value": "1"}}}, warn=warnings.append)

    assert len(warnings) == 1
    assert "'intra_threads' is unknown" in warnings[0]


def test_every_own_parameter_is_documented() -> None:
    readme = (MODELS / "README.md").read_text(encoding="utf-8")

    for key in settings.OWN_PARAMETERS.keys() | settings.DOCUMENTED_PARAMETERS:
        assert f"`{key}`" in readme
