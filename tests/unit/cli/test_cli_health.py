"""The health command by itself; with a gateway that runs: test_health_check.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from background_loop import in_background

from harness.program import eventually
from immich_triton.cli import health
from immich_triton.server import processes


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    async def readyz(_request: web.Request) -> web.Response:
        return web.Response(text="ready")

    app = web.Application()
    app.router.add_get("/readyz", readyz)
    with in_background(app) as address:
        yield address


@contextmanager
def gateway(run_dir: Path, *options: str) -> Iterator[None]:
    """Run what has the command line of a gateway, and let its pid file name it."""
    program = [sys.executable, "-I", "-S", "-c", "input()", *options]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as process:
        assert eventually(lambda: processes.arguments(process.pid)[: len(program)] == program)
        (run_dir / "gateway.pid").write_text(f"{process.pid}\n")
        yield
        process.kill()


def test_the_gateway_that_runs_says_where_it_is_asked(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with gateway(tmp_path, f"--set=immich_metrics_listen={url.removeprefix('http://')}"):
        assert health.metrics_address(tmp_path) == url.removeprefix("http://")
        assert health.main(["--run-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "ready\n"


def test_one_without_metrics_cannot_be_asked(tmp_path: Path) -> None:
    with (
        gateway(tmp_path, "--set=immich_metrics_listen="),
        pytest.raises(health.UnhealthyError, match="--metrics-port"),
    ):
        health.metrics_address(tmp_path)


@pytest.mark.parametrize("content", ["", "no number", str(2**22 + 1)])
def test_where_none_runs_it_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "gateway.pid").write_text(content)
    with pytest.raises(health.UnhealthyError, match=f"no gateway runs with the folder {tmp_path}"):
        health.metrics_address(tmp_path)


def test_the_one_for_mt_photos_is_asked_too_where_it_runs(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listens = f"--set=immich_metrics_listen={url.removeprefix('http://')}"
    folder = tmp_path / "mt_photos"
    with gateway(tmp_path, listens):
        folder.mkdir()
        assert health.addresses(tmp_path) == [f"{url}/readyz"]
        with gateway(folder, listens):
            assert health.main(["--run-dir", str(tmp_path)]) == 0
        assert capsys.readouterr().out == "ready\nready\n"
        with gateway(folder, "--set=immich_metrics_listen="):
            assert health.main(["--run-dir", str(tmp_path)]) == 1
        assert "--mt-photos-metrics-port" in capsys.readouterr().err
        assert health.main(["--run-dir", str(tmp_path)]) == 1, "it died, and is not there again yet"
        assert f"no gateway runs with the folder {folder}" in capsys.readouterr().err


def test_what_is_missing_is_passed_on() -> None:
    async def unready(_request: web.Request) -> web.Response:
        return web.Response(status=503, text="ocr: away")

    app = web.Application()
    app.router.add_get("/readyz", unready)
    with in_background(app) as address, pytest.raises(health.UnhealthyError, match=r"^ocr: away$"):
        health.ask(address.removeprefix("http://"), 60)


def test_an_address_for_all_is_asked_on_this_machine(url: str) -> None:
    assert health.ask(f"0.0.0.0:{url.rpartition(':')[2]}", 60) == "ready"


def test_any_address_can_be_asked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--url", f"{url}/readyz"]) == 0
    assert health.main(["--url", f"{url}/nothing-there"]) == 1
    assert health.main(["--url", "no address"]) == 1
    assert "no address does not answer: " in capsys.readouterr().err
