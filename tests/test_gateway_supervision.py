"""The supervisor tells its own gateway from a mitmproxy that merely forwards."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from embedded_triton import free_ports
from gateway_process import running_gateway
from recorder import recording_upstream
from toolbox.gateway_process import GatewayProcess, GatewaySettings
from toolbox.preflight import StartError


def supervised(url: str, run_dir: Path) -> GatewayProcess:
    """Return the supervisor's view of what listens at *url*."""
    port = urlsplit(url).port
    assert port
    settings = GatewaySettings(
        upstream="http://127.0.0.1:9",
        host="127.0.0.1",
        port=port,
        metrics_port=9,
        triton_url="http://127.0.0.1:9",
        models=run_dir / "models",
        run_dir=run_dir,
    )
    return GatewayProcess(settings)


def test_a_proxy_without_the_addon_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "empty.py"
    script.touch()
    (tmp_path / "models").mkdir()
    with (
        recording_upstream() as upstream,
        running_gateway(
            tmp_path, models=tmp_path / "models", triton_url="http://127.0.0.1:9", upstream=upstream.url, script=script
        ) as proxy,
    ):
        assert upstream.seen, "it forwards, as mitmproxy does without an addon"
        with pytest.raises(StartError, match="mitmproxy runs without"):
            supervised(proxy.url, tmp_path).why_not_ready()


def test_the_gateway_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(tmp_path, models=tmp_path / "models", triton_url=nobody, upstream=nobody) as proxy:
        assert supervised(proxy.url, tmp_path).why_not_ready() is None


def test_nobody_there(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert "does not answer" in (supervised(nobody, tmp_path).why_not_ready() or "")
