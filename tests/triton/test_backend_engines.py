import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnxruntime_backend import engines
from onnxruntime_backend.engines import BadRequestError, describe, load_engine
from onnxruntime_backend.openvino_engine import OpenVinoEngine
from onnxruntime_backend.settings import ConfigError, Settings
from triton import tiny_models
from triton.tiny_models import FLOAT, HALF, INT64

from immich_triton.core.paths import PROJECT

RANDOM = np.random.default_rng(7)
OPENVINO = Settings(engine="openvino", intra_op_threads=2)


def test_strings_travel_as_utf8_bytes(tmp_path: Path) -> None:
    engine = load_engine(tiny_models.identity(tmp_path / "model.onnx", tiny_models.STRING, ("n", 2)), Settings())
    value = np.array([["发票".encode(), b""], [b"a\0b", b"plain"]], dtype=np.object_)

    (result,) = engine.run(["y"], {"x": value})

    np.testing.assert_array_equal(result, value)
    assert result.shape == (2, 2)
    with pytest.raises(BadRequestError, match="not valid UTF-8"):
        engine.run(["y"], {"x": np.array([[b"\xff", b""]], dtype=np.object_)})


@pytest.mark.parametrize("settings", [Settings(), OPENVINO], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", [FLOAT, HALF, INT64, tiny_models.INT32, tiny_models.BOOL])
def test_types_arrive_unchanged(tmp_path: Path, settings: Settings, kind: int) -> None:
    path = tiny_models.save(
        tmp_path / "model.onnx",
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=1)],
        {"x": (kind, ("n", 2))},
        {"y": (kind, ("n", 4))},
    )
    value = np.array([[0, 1], [1, 1]]).astype(helper.tensor_dtype_to_np_dtype(kind))

    (result,) = load_engine(path, settings).run(["y"], {"x": value})

    assert result.dtype == value.dtype
    np.testing.assert_array_equal(result, np.hstack([value, value]))


def test_a_type_that_triton_cannot_carry_is_named(tmp_path: Path) -> None:
    path = tiny_models.identity(tmp_path / "model.onnx", tiny_models.BFLOAT16)

    with pytest.raises(ConfigError, match=r"tensor 'x' has type tensor\(bfloat16\)"):
        describe(path)


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tiny_models.identity(tmp_path / "model.onnx")

    with pytest.raises(ConfigError, match="GPU 0"):
        load_engine(path, Settings(device_id=0))


class Runtime:
    """An ONNX Runtime for GPUs whose sessions cannot be made; it remembers in which order it was asked."""

    def __init__(self, log: list[object]) -> None:
        self._real, self._log = engines.runtime_module(), log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def preload_dlls(self, **options: object) -> None:
        sys.stdout.write("Failed to load libcudnn.so.9\n")
        self._log.append(options)

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, path: str, **options: Any) -> Any:  # noqa: N802 - the real one's name
        self._log.append(options["providers"])
        return self._real.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_libraries_of_cuda_come_from_the_packages_and_the_cpu_is_no_substitute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log: list[object] = []
    runtime = Runtime(log)
    monkeypatch.setattr(engines, "runtime_module", lambda: runtime)
    path = tiny_models.identity(tmp_path / "model.onnx")
    # What ONNX Runtime does when it cannot load CUDA: it logs that, and computes on the CPU.
    with pytest.raises(ConfigError, match=r"could not use GPU 1 \(Failed to load libcudnn\.so\.9\); "):
        load_engine(path, Settings(device_id=1, cuda={"gpu_mem_limit": "7"}))
    cuda = ("CUDAExecutionProvider", {"gpu_mem_limit": "7", "device_id": "1"})
    assert log == [{"directory": ""}, [cuda, "CPUExecutionProvider"]]
    assert capsys.readouterr().out == ""
    load_engine(path, Settings())
    assert log[2:] == [["CPUExecutionProvider"]], "on a CPU nothing of CUDA is looked for"


def test_openvino_gives_onnx_runtimes_results(tmp_path: Path) -> None:
    # On a CPU with bf16 units, OpenVINO's own choice of precision would differ by 1e-2 here.
    path = tiny_models.convolution(tmp_path / "model.onnx")
    ours, reference = load_engine(path, OPENVINO), load_engine(path, Settings(intra_op_threads=2))

    for shape in [(1, 3, 32, 48), (4, 3, 40, 24), (2, 3, 64, 64), (1, 3, 32, 48)]:
        image = RANDOM.standard_normal(shape).astype(np.float32)
        (result,) = ours.run(["y"], {"x": image})
        (expected,) = reference.run(["y"], {"x": image})
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_openvino_results_outlive_the_next_run(tmp_path: Path) -> None:
    engine = load_engine(tiny_models.two_layers(tmp_path / "model.onnx"), OPENVINO)
    (first,) = engine.run(["y"], {"x": np.ones((1, 64), dtype=np.float32)})
    kept = first.copy()

    engine.run(["y"], {"x": np.zeros((1, 64), dtype=np.float32)})

    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(level="basic", mem_arena=False, mem_pattern=False),
        Settings(level="disabled", allow_spinning=True, intra_op_threads=2),
        Settings(level="extended", parallel=True, inter_op_threads=2),
        Settings(run_entries={"memory.enable_memory_arena_shrinkage": "cpu:0"}),
        Settings(session_entries={"session.use_device_allocator_for_initializers": "1"}),
    ],
    ids=["no arena", "spinning", "parallel", "shrinking arena", "weights outside the arena"],
)
def test_settings_change_how_and_not_what_is_computed(tmp_path: Path, settings: Settings) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx")
    feed = {"x": RANDOM.standard_normal((2, 3, 24, 32)).astype(np.float32)}
    (expected,) = load_engine(path, Settings()).run(["y"], feed)

    (result,) = load_engine(path, settings).run(["y"], feed)

    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_openvino_describes_a_model_as_onnx_runtime_does(tmp_path: Path) -> None:
    for path in (
        tiny_models.convolution(tmp_path / "a.onnx"),
        tiny_models.run_size(tmp_path / "b.onnx"),
        tiny_models.identity(tmp_path / "c.onnx", HALF, (2, "n", 3)),
        tiny_models.identity(tmp_path / "d.onnx", INT64, ()),
    ):
        engine = load_engine(path, OPENVINO)

        assert (engine.inputs, engine.outputs) == describe(path)


def test_openvino_refuses_strings(tmp_path: Path) -> None:
    path = tiny_models.identity(tmp_path / "model.onnx", tiny_models.STRING)

    with pytest.raises(ConfigError, match="cannot run tensor 'x' of string"):
        load_engine(path, OPENVINO)


GROWTH = """
import sys
import numpy as np
from pathlib import Path
from onnxruntime_backend.engines import load_engine
from onnxruntime_backend.settings import Settings

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

engine = load_engine(Path(sys.argv[1]), Settings(engine=sys.argv[2], intra_op_threads=2))
sizes = np.random.default_rng(0).integers(20, 160, (400, 2))
engine.run(["y"], {"x": np.zeros((4, 3, 160, 160), np.float32)})
for index, (height, width) in enumerate(sizes):
    engine.run(["y"], {"x": np.zeros((1 + index % 4, 3, height, width), np.float32)})
    if index == 200:
        before = resident()
print(resident() - before)
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_memory_stays_flat_over_hundreds_of_shapes(tmp_path: Path, engine: str) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx", channels=64)

    result = subprocess.run(
        [sys.executable, "-c", GROWTH, str(path), engine],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "triton_backends")},
        capture_output=True,
        text=True,
        check=True,
    )

    # Measured: about 12 MiB; with OpenVINO's default cache of prepared kernels 22 MiB for each 100 shapes, without end.
    assert int(result.stdout) < 25 * 2**20


HELD = """
import sys
import numpy as np
from pathlib import Path
from immich_pipelines.trimming import trim
from onnxruntime_backend.engines import load_engine
from onnxruntime_backend.settings import Settings

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024

engine = load_engine(Path(sys.argv[1]), Settings(engine="openvino", intra_op_threads=2))
small, large = (np.ones((1, 3, side, side), np.float32) for side in (32, 640))
engine.run(["y"], {"x": small})
before = anonymous()
(expected,) = engine.run(["y"], {"x": large})
used = anonymous()
engine.release()
trim()
print(used - before, anonymous() - before - expected.nbytes)
(again,) = engine.run(["y"], {"x": large})
assert np.array_equal(again, expected), "another answer after memory was given back"
"""


def test_openvino_gives_the_memory_of_a_large_image_back_when_it_rests(tmp_path: Path) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx", channels=64)

    result = subprocess.run(
        [sys.executable, "-c", HELD, str(path)],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "triton_backends")},
        capture_output=True,
        text=True,
        check=True,
    )

    used, kept = map(int, result.stdout.split())
    assert used > 100 * 2**20, "the image is too small to show anything"
    assert kept < used / 4


class Counted:
    """A compiled model of OpenVINO that counts how often it is asked to release its memory."""

    def __init__(self, compiled: Any) -> None:
        self._compiled, self.released = compiled, 0

    def release_memory(self) -> None:
        self.released += 1
        self._compiled.release_memory()


def test_openvino_lets_go_of_buffers_before_it_makes_larger_ones(tmp_path: Path) -> None:
    engine = OpenVinoEngine(tiny_models.convolution(tmp_path / "model.onnx"), OPENVINO)
    engine._compiled = counted = Counted(engine._compiled)
    reference = load_engine(tiny_models.convolution(tmp_path / "other.onnx"), Settings(intra_op_threads=2))

    released = []
    for side in (32, 64, 64, 48, 64, 80, 32):
        image = RANDOM.standard_normal((1, 3, side, side)).astype(np.float32)
        (result,) = engine.run(["y"], {"x": image})
        np.testing.assert_allclose(result, reference.run(["y"], {"x": image})[0], atol=1e-4)
        released.append(counted.released)

    assert released == [0, 1, 1, 1, 1, 2, 2], "more often costs time, less often memory"


def test_openvino_keeps_its_memory_while_it_runs(tmp_path: Path) -> None:
    engine = OpenVinoEngine(tiny_models.convolution(tmp_path / "model.onnx"), OPENVINO)
    engine._compiled = counted = Counted(engine._compiled)
    engine.release()
    assert counted.released == 0, "it has not run yet"
    engine.run(["y"], {"x": np.ones((1, 3, 32, 32), np.float32)})
    with engine._one_at_a_time:  # as long as a run goes on
        engine.release()
    assert counted.released == 0
    engine.release()
    engine.release()
    assert counted.released == 1
    engine.close()
    engine.release()


def test_a_large_batch_is_computed_one_item_at_a_time(tmp_path: Path) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx")
    images = RANDOM.standard_normal((3, 3, 40, 24)).astype(np.float32)
    bounded = OpenVinoEngine(path, replace(OPENVINO, largest_run=2 * 3 * 40 * 24))
    sizes: list[int] = []
    request = bounded._request

    class Watched:
        def infer(self, feed: dict[str, Any], **options: Any) -> None:
            sizes.append(len(feed["x"]))
            request.infer(feed, **options)

        def get_tensor(self, port: Any) -> Any:
            return request.get_tensor(port)

    bounded._request = Watched()
    (expected,) = load_engine(path, OPENVINO).run(["y"], {"x": images})

    (result,) = bounded.run(["y"], {"x": images})
    np.testing.assert_allclose(result, expected, atol=1e-5)
    (result,) = bounded.run(["y"], {"x": images[:2]})
    np.testing.assert_allclose(result, expected[:2], atol=1e-5)

    assert sizes == [1, 1, 1, 2]


def test_external_data_in_several_files_beside_the_model(tmp_path: Path) -> None:
    path = tiny_models.two_layers(tmp_path / "split/model.onnx", external_data=True)
    whole = tiny_models.two_layers(tmp_path / "whole/model.onnx")
    value = RANDOM.standard_normal((2, 64)).astype(np.float32)
    (expected,) = load_engine(whole, Settings()).run(["y"], {"x": value})

    assert len(list(path.parent.iterdir())) == 3
    for settings in (Settings(), OPENVINO):
        (result,) = load_engine(path, settings).run(["y"], {"x": value})
        np.testing.assert_allclose(result, expected, atol=1e-5)
