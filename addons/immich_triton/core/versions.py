"""Which versions run here, for people who look for the reason of a difference.

The gateway also runs from a folder (``mitmdump -s``, the container), where no package of ours is installed, and some
packages come under several names. None of that may end a program: what cannot be told is "unknown".
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

import immich_triton

UNKNOWN: Final = "unknown"

ONNX_RUNTIME: Final = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""The packages that bring the module ``onnxruntime``, one of which is installed."""


def own() -> str:
    """Return the version of this project, installed or not."""
    return immich_triton.__version__


def of(name: str, *stand_ins: str) -> str:
    """Return the version of the installed package *name*, of the first of its *stand_ins* there is, or "unknown".

    That of a stand-in says whose it is: ``1.31.1 (onnxruntime-gpu)``.
    """
    for candidate in (name, *stand_ins):
        try:
            found = version(candidate)
        except PackageNotFoundError:
            continue
        return found if candidate == name else f"{found} ({candidate})"
    return UNKNOWN


def of_onnx_runtime() -> str:
    """Return the version of ONNX Runtime, whichever of its packages is installed."""
    return of(*ONNX_RUNTIME)
