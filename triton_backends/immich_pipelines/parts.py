"""Single modules of libraries, without what their packages import along.

``import rapidocr_onnxruntime.ch_ppocr_rec.utils`` runs the package's own ``__init__`` first, which brings ONNX Runtime
and a whole reader; InsightFace's brings all of SciPy. A pipeline needs a class or two of them, in each of its
processes. Where the module itself imports what its part is used without, something else can stand there meanwhile:
InsightFace's SCRFD names ONNX Runtime, which would hold 25 MB in each process and compute nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, Final

_NOTHING: Final[Mapping[str, ModuleType]] = MappingProxyType({})
_parts: dict[str, Any] = {}


def part(name: str, instead: Mapping[str, ModuleType] = _NOTHING) -> Any:
    """Return module *name*, ``package.….module``, loaded without running the ``__init__`` of the packages around it.

    It is ours alone: whoever imports the package, before or after, gets the whole of it. *instead* is what it gets when
    it imports these packages itself, the first time; nobody else does. Raises `ModuleNotFoundError`.
    """
    if name not in _parts:
        _parts[name] = _load(name, instead)
    return _parts[name]


@contextlib.contextmanager
def instead_of(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Have whoever imports these packages get *modules*, by name, while the block lasts."""
    with _hidden(modules.keys()):
        sys.modules.update(modules)
        yield


def _load(name: str, instead: Mapping[str, ModuleType]) -> ModuleType:
    packages = name.split(".")[:-1]
    above = [".".join(packages[:depth]) for depth in range(1, len(packages) + 1)]
    with instead_of(instead), _hidden({above[0]}):
        for package in above:
            sys.modules[package] = _bare(package)
        return importlib.import_module(name)


@contextlib.contextmanager
def _hidden(packages: Collection[str]) -> Iterator[None]:
    """Have Python forget that *packages* are imported, and afterwards what was imported of them meanwhile."""
    before = {known: sys.modules.pop(known) for known in list(sys.modules) if known.partition(".")[0] in packages}
    try:
        yield
    finally:
        for known in [known for known in sys.modules if known.partition(".")[0] in packages]:
            del sys.modules[known]
        sys.modules.update(before)


def _bare(package: str) -> ModuleType:
    parent = package.rpartition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(package, sys.modules[parent].__path__ if parent else None)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return importlib.util.module_from_spec(spec)
