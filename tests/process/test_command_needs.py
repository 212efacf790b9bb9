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
    packages = locked("requirements-dev.lock") - locked("requirements-gateway.lock")
    modules = packages_distributions().items()
    return {module for module, owners in modules if all(re.sub(r"[_.]", "-", o).lower() in packages for o in owners)}


def test_pillow_and_onnx_are_beyond_the_gateway() -> None:
    assert {"PIL", "onnx", "onnxruntime", "pytriton"} <= beyond_the_gateway()
    assert not {"mitmproxy", "numpy", "requests", "rich"} & beyond_the_gateway()


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.needs is not Needs.TRITON])
def test_a_command_imports_nothing_that_it_does_not_need(name: str) -> None:
    missing = sorted(beyond_the_gateway() - set(COMMANDS[name].needs.value))
    script = WITHOUT.format(missing=missing, words=name.split())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: immich-triton {name}")
