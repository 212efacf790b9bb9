"""What matters is found in the log: nothing is said there of ordinary connections, of which Immich opens thousands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder, recording_upstream

from harness.ports import free_ports
from harness.program import eventually

SAID = (" client connect", " client disconnect", " server connect ", " server disconnect ")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@contextmanager
def asked(directory: Path, upstream: Recorder, **options: object) -> Iterator[GatewayProcess]:
    """Run a gateway that has passed one request to *upstream*."""
    (directory / "models").mkdir()
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(
        directory,
        models=directory / "models",
        triton_url=nobody,
        upstream=upstream.url,
        **options,  # type: ignore[arg-type]
    ) as gateway:
        assert requests.get(f"{gateway.url}/elsewhere", timeout=60).ok
        yield gateway


def test_nothing_is_logged_of_ordinary_connections(tmp_path: Path, upstream: Recorder) -> None:
    with asked(tmp_path, upstream) as gateway:
        log = gateway.whole_log()
    assert [one for one in (*SAID, "Streaming re") if one in log] == []


def test_who_debugs_is_told(tmp_path: Path, upstream: Recorder) -> None:
    with asked(tmp_path, upstream, termlog_verbosity="debug") as gateway:
        assert eventually(lambda: all(one in gateway.log for one in SAID))
