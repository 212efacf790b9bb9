"""The container's health command: it asks the gateway that runs, wherever its metrics are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gateway_process import GatewayProcess, kept, running_gateway
from stand_in_triton import stand_in_triton, write_routes

from immich_triton.cli import health


def check(directory: Path, gateway: GatewayProcess) -> int:
    """Return the exit code for the gateway that has its pid file in *directory*, as that of a run."""
    (directory / "gateway.pid").write_text(f"{gateway.pid}\n")
    return health.main(["--run-dir", str(directory), "--timeout", "60"])


@pytest.mark.parametrize("token", ["", "correct-horse_battery-staple"])
def test_tells_whether_every_route_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str], token: str) -> None:
    more: dict[str, Any] = {"immich_path_token": kept(tmp_path, token)} if token else {}
    with (
        stand_in_triton() as triton,
        running_gateway(
            tmp_path,
            models=write_routes(tmp_path / "models"),
            triton_url=triton.url,
            upstream="http://127.0.0.1:9",
            fresh=True,
            **more,
        ) as gateway,
    ):
        assert check(tmp_path, gateway) == 0
        triton.unready.add("ocr_rec")
        assert check(tmp_path, gateway) == 1
        assert "ocr_rec" in capsys.readouterr().err


def test_a_gateway_without_metrics_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    nobody = "http://127.0.0.1:9"
    with running_gateway(
        tmp_path, models=tmp_path / "models", triton_url=nobody, upstream=nobody, fresh=True, immich_metrics_listen=""
    ) as gateway:
        assert check(tmp_path, gateway) == 1
    assert "the gateway serves no /readyz" in capsys.readouterr().err
    # It has ended now.
    assert check(tmp_path, gateway) == 1
    assert "no gateway runs with the folder" in capsys.readouterr().err


def test_before_the_first_start_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--run-dir", str(tmp_path)]) == 1
    assert "is it still starting?" in capsys.readouterr().err


def test_who_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(health.UnhealthyError, match=r"http://\[::1\]:9/readyz does not answer"):
        health.ask("[::1]:9", 5)
