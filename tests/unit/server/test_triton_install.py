"""What the embedded Triton is put together from."""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from pathlib import Path

import pytest

from immich_triton.server import triton_install
from immich_triton.server.preflight import StartError


def test_libpython_is_the_one_of_this_python() -> None:
    library = ctypes.CDLL(str(triton_install.find_libpython()))
    library.Py_GetVersion.restype = ctypes.c_char_p
    assert library.Py_GetVersion().decode() == sys.version.replace("\n", "")


def test_a_python_without_a_shared_library_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: str(tmp_path))
    with pytest.raises(StartError, match=r"apt install libpython3\.12.*--enable-shared"):
        triton_install.find_libpython()


def test_the_backend_directory_can_be_prepared_again(tmp_path: Path) -> None:
    for _ in range(2):
        backends = triton_install.prepare(tmp_path)
    library = backends / "python/libtriton_python.so"
    assert library.is_file()
    assert not library.is_symlink()  # Triton refuses one that leads out of its folder
    assert os.access(backends / "python/triton_python_backend_stub", os.X_OK)
    assert (backends / "onnxruntime/model.py").is_file()
    assert (backends / "python/immich_pipelines/__init__.py").is_file()


def test_another_backend_for_onnx_models_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    backends = triton_install.prepare(tmp_path / "run", tmp_path / "other")
    assert (backends / "onnxruntime").resolve() == tmp_path / "other"


def test_heaps_are_few_if_the_user_does_not_want_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ARENA_MAX", 1), ("MMAP_THRESHOLD_", 32 << 20), ("TRIM_THRESHOLD_", 64 << 20)):
        monkeypatch.delenv(f"MALLOC_{name}", raising=False)
        assert triton_install.environment(tmp_path)[f"MALLOC_{name}"] == str(value)
        monkeypatch.setenv(f"MALLOC_{name}", "8")
        assert triton_install.environment(tmp_path)[f"MALLOC_{name}"] == "8"


def test_stubs_find_this_python_first(tmp_path: Path) -> None:
    environment = triton_install.environment(tmp_path)
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["LD_LIBRARY_PATH"].split(":") == [
        str(triton_install.site_packages() / "nvidia_pytriton.libs"),
        str(tmp_path / "lib"),
    ]


def test_triton_itself_takes_no_memory_of_any_card(tmp_path: Path) -> None:
    line = triton_install.command(
        tmp_path, tmp_path, host="127.0.0.1", http_port=1, metrics_port=2, key="", metrics_host="", shm_prefix="a",
        exit_seconds=3,
    )  # fmt: skip
    assert "--pinned-memory-pool-byte-size=0" in line
    assert {"--cuda-memory-pool-byte-size=0:0", "--cuda-memory-pool-byte-size=15:0"} <= {*line}
