"""``immich-triton setup``: which tool installs, what it says, what it refuses. The whole: slow/test_wheel.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from immich_triton.cli import environment, setup
from immich_triton.core.paths import PACKAGE


def test_uv_installs_where_it_is_and_pip_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup.installer(tmp_path / "env")[1:4] == ["-m", "pip", "install"]
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    line = [str(tmp_path / "uv"), "pip", "install", f"--python={tmp_path / 'env/bin/python'}"]
    assert setup.installer(tmp_path / "env") == line


def test_it_says_how_far_it_is_and_what_went_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "EVERY", 0.0)
    output = [
        "Collecting numpy==1.26.4 (from -r requirements.lock (line 1))\n",
        "  Using cached numpy-1.26.4.whl\n",
        "Collecting onnx==1.20 (from -r requirements.lock (line 9))\n",
        "ERROR: No matching distribution found for onnx==1.20\n",
        "Installing collected packages: numpy, onnx\n",
    ]
    assert list(setup.shown(iter(output), 2)) == output
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "setup: 1 of 2: numpy",
        "setup: 2 of 2: onnx",
        "ERROR: No matching distribution found for onnx==1.20",
        "setup: 2 of 2 are here; unpacking",
    ]


def test_it_says_with_what_it_installs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# nothing\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text("#!/bin/sh\necho Resolved nothing\n")
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert setup.main(["--lock", str(lock), "--environment", str(tmp_path / "env")]) == 0
    assert "setup: installing 0 packages from requirements.lock with uv" in capsys.readouterr().out


def test_a_lock_that_is_missing_is_said_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "env"
    assert setup.main(["--lock", str(tmp_path / "no.lock"), "--environment", str(target)]) == 1
    assert "no.lock is missing" in capsys.readouterr().err
    assert not target.exists()


def test_an_environment_holds_what_its_lock_says_and_this_package_alone(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# nothing\n")
    target = tmp_path / "env"
    assert setup.main(["--lock", str(lock), "--environment", str(target)]) == 0
    assert environment.is_ready(target)
    site = target / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    assert {path.name for path in site.iterdir()} >= {"immich_triton", "pip"}
    assert (site / "immich_triton").resolve() == PACKAGE


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the lock files be empty ones, and the user's folder for data one of the test's own; return where both are."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for name in ("LOCK", "GPU_LOCK", "WEB_LOCK"):
        (tmp_path / name).write_text(f"# {name}\n")
        monkeypatch.setattr(environment, name, tmp_path / name)
    return tmp_path


def test_environments_of_other_locks_go_and_those_of_the_present_ones_stay(locks: Path) -> None:
    present = [environment.folder(*chosen) for chosen in environment.choices(site=False)]
    assert len(present) == 4
    for folder in (*present, old := present[0].with_name("env-0123456789ab"), other := present[0].with_name("models")):
        folder.mkdir(parents=True)
    setup.remove_others(environment.folder(), [environment.LOCK])
    assert [folder.exists() for folder in (*present, old, other)] == [True, True, True, True, False, True]


def test_with_the_site_one_environment_has_both_and_replaces_the_one_without(
    locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup.main([]) == 0
    plain = environment.folder()
    assert environment.is_ready(plain)
    assert setup.main(["--web"]) == 0
    said = capsys.readouterr().out
    assert "from LOCK with" in said
    assert "from WEB_LOCK with" in said
    assert f"removing {plain}, whose packages are all in " in said
    assert said.endswith("setup: done; go on with: immich-triton run --web http://immich-server:2283\n")
    assert environment.is_ready(environment.folder(locks / "LOCK", locks / "WEB_LOCK"))
    assert not plain.exists()


def test_the_site_goes_with_the_libraries_for_gpus_too(locks: Path) -> None:
    assert setup.main(["--gpu", "--web"]) == 0
    assert environment.is_ready(environment.folder(locks / "GPU_LOCK", locks / "WEB_LOCK"))


def test_nothing_is_made_while_one_of_the_locks_is_missing(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (locks / "WEB_LOCK").unlink()
    assert setup.main(["--web"]) == 1
    assert "WEB_LOCK is missing: this installation of immich-triton is not whole" in capsys.readouterr().err
    assert not (locks / "immich-triton").exists()


def pins(lock: Path) -> dict[str, str]:
    """Return the versions that a lock file names."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("base", [environment.LOCK, environment.GPU_LOCK], ids=lambda lock: lock.stem)
def test_what_is_in_two_locks_has_one_version(base: Path) -> None:
    first, second = pins(base), pins(environment.WEB_LOCK)
    assert {name: (first[name], second[name]) for name in first.keys() & second.keys()} == {
        name: (version, version) for name, version in first.items() if name in second
    }
    assert {"asyncpg", "bullmq", "opencc", "redis", "rjieba"} <= second.keys() - first.keys()
