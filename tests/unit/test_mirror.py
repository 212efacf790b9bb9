"""tests/unit mirrors the package: each module has a file of tests that is named after it."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from places import PROJECT

PACKAGE: Final = PROJECT / "addons/immich_triton"
TESTS: Final = PROJECT / "tests"

TORCH: Final = "runs where torch is, which is not here: test_export_clip.py has it run"

SITE: Final = "a program of the site: tests/web/test_reprocess_command.py"

EXCEPTIONS: Final = {
    "web": "needs a double of the Immich server: all of tests/web is about it",
    "__main__.py": "calls the command: every test that starts a program of ours goes through it",
    "export/clip/parity.py": TORCH,
    "export/clip/torch_export.py": TORCH,
    "cli/reprocess.py": SITE,
    "immich/own_assets.py": SITE,
}
"""Modules, and rooms, without a file of their own, with the reason."""


def lacking(package: Path, tests: Path) -> list[str]:
    """Return the modules of *package* that no file in ``unit`` or ``process`` of *tests* is named after.

    ``test_<module>.py`` lies in the module's room of ``unit``, or in ``process`` where only a process shows what the
    module does. ``test_<folder>_<module>.py`` does as well: names differ from each other across all folders. A file
    counts when it imports the module, but for one in ``process`` whose name can only mean this one.
    """
    modules = [path for path in sorted(package.rglob("*.py")) if path.stem != "__init__"]
    stems = Counter(path.stem for path in modules)
    files: dict[str, list[Path]] = {}
    for tier in ("unit", "process"):
        for path in (tests / tier).rglob("test_*.py"):
            files.setdefault(path.stem, []).append(path.relative_to(tests))

    def has_one(module: Path) -> bool:
        room, stem = module.relative_to(package).parts[0], module.stem
        named = [*files.get(f"test_{stem}", ()), *files.get(f"test_{module.parent.name}_{stem}", ())]
        there = [file for file in named if file.parts[0] == "process" or file.parts[1] == room]
        if any(file.parts[0] == "process" and stems[file.stem.removeprefix("test_")] == 1 for file in there):
            return True
        return any(module in _imports(tests / file, package) for file in there)

    return [str(module.relative_to(package)) for module in modules if not has_one(module)]


def _imports(test: Path, package: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(test.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    own = f"{package.name}."
    return {package / f"{name.removeprefix(own).replace('.', '/')}.py" for name in names if name.startswith(own)}


def test_every_module_has_a_file_of_its_own() -> None:
    found = [path for path in lacking(PACKAGE, TESTS) if not _is_excepted(path)]
    assert found == [], "add tests/unit/<room>/test_<module>.py, see CONTRIBUTING.md"


def _is_excepted(path: str) -> bool:
    return any(path == exception or path.startswith(f"{exception}/") for exception in EXCEPTIONS)


def test_no_exception_is_out_of_date() -> None:
    missing = lacking(PACKAGE, TESTS)
    for exception in EXCEPTIONS:
        assert any(path == exception or path.startswith(f"{exception}/") for path in missing), exception


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    ("test", "content", "counts"),
    [
        ("unit/core/test_one.py", "from immich_triton.core.one import x", True),
        ("unit/core/deeper/test_one.py", "from immich_triton.core import one", True),
        ("unit/core/test_core_one.py", "import immich_triton.core.one", True),
        ("unit/core/test_one.py", "from immich_triton.core import two", False),
        ("unit/core/test_one.py", "", False),
        ("unit/proxy/test_one.py", "from immich_triton.core.one import x", False),
        ("unit/core/test_once.py", "from immich_triton.core.one import x", False),
        ("process/test_one.py", "", True),
        ("process/test_core_one.py", "from immich_triton.core.one import x", True),
        ("e2e/test_one.py", "from immich_triton.core.one import x", False),
    ],
)
def test_what_counts_as_one(tmp_path: Path, test: str, content: str, counts: bool) -> None:
    package, tests = tmp_path / "immich_triton", tmp_path / "tests"
    for path, text in ((package / "core/one.py", ""), (package / "core/__init__.py", ""), (tests / test, content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert lacking(package, tests) == ([] if counts else ["core/one.py"])


def test_a_name_that_two_modules_have_says_which_by_its_imports(tmp_path: Path) -> None:
    package, tests = tmp_path / "immich_triton", tmp_path / "tests"
    (tests / "process").mkdir(parents=True)
    for room in ("proxy", "triton"):
        (package / room).mkdir(parents=True)
        (package / room / "wire.py").touch()
    (tests / "process/test_wire.py").write_text("from immich_triton.proxy import wire")
    assert lacking(package, tests) == ["triton/wire.py"]
