"""What the embedded Triton needs of this machine, and its command line.

The server binary is the one of the ``nvidia-pytriton`` wheel. Nothing is written into the wheel's folder (it may be
read-only): the backend directory is put together in the run directory.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from immich_triton.core.paths import PROJECT
from immich_triton.server.preflight import StartError
from immich_triton.triton.wire import KEY_HEADER

BACKENDS = PROJECT / "triton_backends"
ONNXRUNTIME_BACKEND = BACKENDS / "onnxruntime"


def site_packages() -> Path:
    """Return the folder that holds the wheel. Raises `StartError` when it is not installed."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise StartError(
            "nvidia-pytriton, which holds the Triton binary, is not installed: run immich-triton setup "
            "(make setup in a clone)"
        )
    return Path(next(iter(spec.submodule_search_locations))).parent


def find_libpython() -> Path:
    """Return the shared library of the running Python, which Triton's Python stub is linked against."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    prefix = Path(sys.base_prefix)
    folders = [sysconfig.get_config_var("LIBDIR"), prefix / "lib", prefix / "lib/x86_64-linux-gnu", prefix / "lib64"]
    for folder in folders:
        if folder and (path := Path(folder) / name).exists():
            return path
    raise StartError(
        f"{name} was not found (looked in {', '.join(str(folder) for folder in folders if folder)}): this Python was "
        f"built without its shared library. Debian/Ubuntu: apt install libpython3.12; pyenv: "
        f"PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force 3.12; then remove {sys.prefix} and run "
        "immich-triton setup (make setup in a clone)"
    )


def check() -> None:
    """Raise `StartError` when the wheel, or the library that its Python stub needs, is not on this machine."""
    site_packages()
    find_libpython()


def prepare(run_dir: Path, onnxruntime_backend: Path = ONNXRUNTIME_BACKEND) -> Path:
    """Fill ``run_dir/backends`` and ``run_dir/lib``, and return the backend directory."""
    wheel = site_packages() / "pytriton/tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backends = run_dir / "backends"
    # Triton refuses a library that is a link out of its backend directory, so these (3 MB) are copied.
    copies = {
        backends / "python/libtriton_python.so": wheel / "backends/python/libtriton_python.so",
        backends / "python/triton_python_backend_utils.py": wheel / "backends/python/triton_python_backend_utils.py",
        # The wheel carries one stub per Python version; Triton takes the one beside its library.
        backends / "python/triton_python_backend_stub": (
            wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
        ),
    }
    links = {
        # This folder is on the stub's sys.path, PYTHONPATH is not: the stub starts Python without its environment.
        backends / "python/immich_pipelines": BACKENDS / "immich_pipelines",
        backends / "onnxruntime": onnxruntime_backend,
        # A folder with this one library, since the whole LIBDIR on LD_LIBRARY_PATH would shadow the wheel's own.
        run_dir / "lib" / find_libpython().name: find_libpython(),
    }
    for target, source in (copies | links).items():
        if not source.exists():
            raise StartError(
                f"{source} is missing: run immich-triton setup again (make setup in a clone) (Python {version})"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another inode, not another content: a server of an earlier run may still have the old file mapped.
        target.unlink(missing_ok=True)
        if target in copies:
            shutil.copy(source, target)
        else:
            target.symlink_to(source.resolve())
    return backends


GUARDED = "inference,model-repository,shared-memory,trace,logging"
"""What needs the key. Health stays open, so that anybody may ask whether the server is ready."""

MOST_CARDS = 16
"""Cards in one machine; a flag about a card that is not there does nothing."""


def command(
    models: Path,
    backends: Path,
    *,
    host: str,
    http_port: int,
    metrics_port: int,
    key: str,
    metrics_host: str,
    shm_prefix: str,
    exit_seconds: int,
) -> list[str]:
    """Return Triton's command line. Each flag that is not a default says why.

    No model is loaded at the start, so that it answers at once: whoever starts it loads them, in a useful order.
    """
    door = [f"--http-restricted-api={GUARDED}:{KEY_HEADER}={key}"] if key else []
    return [
        str(site_packages() / "pytriton/tritonserver/bin/tritonserver"),
        f"--model-repository={models}",
        f"--backend-directory={backends}",
        # Loading and unloading by request is refused outside explicit mode.
        "--model-control-mode=explicit",
        # One broken model must not take the others down.
        "--exit-on-error=false",
        "--strict-readiness=true",
        f"--http-address={host}",
        *door,
        "--http-port",
        str(http_port),
        f"--metrics-address={metrics_host}",
        f"--metrics-port={metrics_port}",
        "--allow-grpc=false",
        "--allow-metrics=true",
        f"--exit-timeout-secs={exit_seconds}",
        # Pools for tensors that models exchange on a card. Ours exchange them in shared memory, and Triton itself held
        # 584 MiB of an H200.
        "--pinned-memory-pool-byte-size=0",
        *(f"--cuda-memory-pool-byte-size={number}:0" for number in range(MOST_CARDS)),
        # A name of our own, so that what a killed server leaves in /dev/shm can be told from other people's.
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        f"--backend-config=onnxruntime,shm-region-prefix-name={shm_prefix}",
    ]


def environment(run_dir: Path) -> dict[str, str]:
    """Return the environment of the server and of its Python stubs."""
    packages = site_packages()
    result = dict(os.environ)
    # Each thread of a process may get a heap of its own, up to eight for each core. Of all but the first glibc gives
    # nothing at the end back, whatever it is asked: the images that a pipeline's threads have scaled, 30 MB a process.
    result.setdefault("MALLOC_ARENA_MAX", "1")
    # glibc arrives at these by itself once a process has freed a block of 32 MB. One that never does has the kernel
    # clear new pages for every image: 5 % of the time of a page of text. immich_pipelines.trimming gives back the rest.
    result.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 << 20))
    result.setdefault("MALLOC_TRIM_THRESHOLD_", str(64 << 20))
    # The stub takes the standard library and the packages of the `python3` that it finds first (measured: it honours
    # neither PYTHONHOME nor PYTHONPATH).
    result["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{result.get('PATH', os.defpath)}"
    result["LD_LIBRARY_PATH"] = f"{packages / 'nvidia_pytriton.libs'}:{run_dir / 'lib'}"
    return result
