"""The supervisor tells its own gateway from a mitmproxy that merely forwards."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from gateway_process import kept, running_gateway
from recorder import recording_upstream
from small_models import write_model, write_ocr_route

from harness.ports import free_ports
from immich_triton.server.gateway_process import GatewayProcess, GatewaySettings
from immich_triton.server.preflight import StartError
from immich_triton.server.proxy_process import given


def supervised(url: str, run_dir: Path, metrics_url: str = "") -> GatewayProcess:
    """Return the supervisor's view of what listens at *url*, and serves its metrics at *metrics_url*."""
    port = urlsplit(url).port
    assert port
    settings = GatewaySettings(
        upstream="http://127.0.0.1:9",
        host="127.0.0.1",
        port=port,
        metrics_port=urlsplit(metrics_url).port,
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


def test_a_gateway_behind_a_token_is_asked_for_its_health_elsewhere(tmp_path: Path) -> None:
    write_ocr_route(write_model(tmp_path / "models", "ocr"))
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(
        tmp_path,
        models=tmp_path / "models",
        triton_url=nobody,
        upstream=nobody,
        immich_path_token=kept(tmp_path, "0123456789abcdef"),
    ) as proxy:
        with_metrics = supervised(proxy.url, tmp_path, proxy.metrics_url)
        assert "cannot reach Triton" in (with_metrics.why_not_ready() or "")
        assert supervised(proxy.url, tmp_path).why_not_ready() is None  # nobody to ask; it runs, that much is sure


def test_what_the_user_sets_is_not_set_twice(tmp_path: Path) -> None:
    settings = GatewaySettings(
        upstream="http://127.0.0.1:9",
        host="127.0.0.1",
        port=3004,
        metrics_port=9464,
        triton_url="http://127.0.0.1:9",
        models=tmp_path,
        run_dir=tmp_path,
        options=["--set", "immich_metrics_listen=0.0.0.0:9999", "--set=immich_deadline=30"],
    )
    assert settings.metrics == "0.0.0.0:9999"
    assert [port.number for port in settings.ports] == [3004, 9999]
    assert sum("immich_metrics_listen" in argument for argument in settings.command) == 1
    assert given(settings.options, "immich_deadline", None) == "30"
    assert given(settings.options, "immich_models", None) is None
