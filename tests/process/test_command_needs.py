"""What a subcommand imports is what it says it needs: from a wheel, nothing else may be there."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from places import PROJECT

from immich_triton.cli.environment import Needs
from immich_triton.cli.main import COMMANDS

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({missing!r}))
from immich_triton.cli import main
main.environment.lacks = lambda needs: []
sys.exit(main.main([*{words!r}, "--help"]))
"""


def locked(name: str) -> set[str]:
    """Return the packages that a lock file lists."""
    return set(re.findall(r"^([a-z0-9.-]+)==", (PROJECT / name).read_text(encoding="utf-8"), re.MULTILINE))


def beyond_the_gateway() -> set[str]:
    """Return the modules that only the environment of the embedded Triton has."""
    return modules_of(locked("requirements-dev.lock") - locked("requirements-gateway.lock"))


def only_of_the_site() -> set[str]:
    """Return the modules that are installed for the site alone."""
    return modules_of(
        locked("requirements-web.lock") - locked("requirements.lock") - locked("requirements-gateway.lock")
    )


def modules_of(packages: set[str]) -> set[str]:
    """Return the modules that are installed here and belong to these *packages* alone."""
    modules = packages_distributions().items()
    return {module for module, owners in modules if all(re.sub(r"[_.]", "-", o).lower() in packages for o in owners)}


def test_pillow_and_onnx_are_beyond_the_gateway() -> None:
    assert {"PIL", "onnx", "onnxruntime", "pytriton"} <= beyond_the_gateway()
    assert not {"mitmproxy", "numpy", "requests", "rich"} & beyond_the_gateway()


WITHOUT_THE_SITE = """
import importlib, runpy, sys
from pathlib import Path
sys.modules.update(dict.fromkeys({missing!r}))
import immich_triton
(root,) = map(Path, immich_triton.__path__)
for path in root.rglob("*.py"):
    if path.is_relative_to(root / "_shipped") or path.stem.startswith("__"):
        continue
    if path.parent.name == "clip" or path.is_relative_to(root / "web") or path == root / "cli/reprocess.py":
        continue  # needs torch; is the site, and a program that asks it
    importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts))
runpy.run_path({addon!r})
assert not [name for name in sys.modules if name.startswith("immich_triton.web")]
"""


def test_the_machine_learning_imports_nothing_of_the_site() -> None:
    """Neither its own modules nor the libraries that only `setup --web` installs."""
    missing = only_of_the_site()
    assert set(Needs.TRITON_AND_SITE.value) - set(Needs.TRITON.value) <= missing
    script = WITHOUT_THE_SITE.format(missing=sorted(missing), addon=str(PROJECT / "addons/immich_ml.py"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.needs is not Needs.TRITON])
def test_a_command_imports_nothing_that_it_does_not_need(name: str) -> None:
    missing = sorted(beyond_the_gateway() - set(COMMANDS[name].needs.value))
    script = WITHOUT.format(missing=missing, words=name.split())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: immich-triton {name}")
