"""Single modules of libraries, without what their packages import along.

``import rapidocr_onnxruntime.ch_ppocr_rec.utils`` runs the package's own ``__init__`` first, which brings ONNX Runtime
and a whole reader; InsightFace's brings all of SciPy. A pipeline needs a class or two of them, in each of its
processes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any


@functools.cache
def part(name: str) -> Any:
    """Return module *name*, ``package.….module``, loaded without running the ``__init__`` of the packages around it.

    It is ours alone: whoever imports the package, before or after, gets the whole of it. Raises `ModuleNotFoundError`.
    """
    packages = name.split(".")[:-1]
    above = [".".join(packages[:depth]) for depth in range(1, len(packages) + 1)]
    before = {known: sys.modules.pop(known) for known in list(sys.modules) if f"{known}.".startswith(f"{above[0]}.")}
    try:
        for package in above:
            sys.modules[package] = _bare(package)
        return importlib.import_module(name)
    finally:
        for known in [known for known in sys.modules if f"{known}.".startswith(f"{above[0]}.")]:
            del sys.modules[known]
        sys.modules.update(before)


def _bare(package: str) -> ModuleType:
    parent = package.rpartition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(package, sys.modules[parent].__path__ if parent else None)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return importlib.util.module_from_spec(spec)
