"""mitmweb's memory stays flat while images go through it, and does not without the bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import flow_memory
import pytest
from embedded_triton import free_ports
from mitmweb import Mitmweb, running_mitmweb
from recorder import Recorder, recording_upstream
from small_models import write_model, write_ocr_route
from toolbox.client import predict

KILOBYTES = 300
IMAGE = flow_memory.padded(KILOBYTES)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


def send(web: Mitmweb, count: int) -> float:
    """Send images through the gateway and return its resident memory in MiB."""
    for _ in range(count):
        assert predict(web.gateway.url, flow_memory.PASSES_THROUGH, image=IMAGE).status == 200
    return web.gateway.rss() / (1 << 20)


@pytest.mark.parametrize(("keep", "grows"), [(40, False), (0, True)])
def test_memory(upstream: Recorder, tmp_path: Path, keep: int, grows: bool) -> None:
    write_ocr_route(write_model(tmp_path / "models", "ocr"))
    triton = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_mitmweb(
        tmp_path, models=tmp_path / "models", triton_url=triton, upstream=upstream.url, immich_keep_flows=keep
    ) as web:
        settled = send(web, 60)
        growth = send(web, 150) - settled
        upstream.seen.clear()
    # What 150 more flows would hold: 43 MiB.
    kept = 150 * KILOBYTES * 1000 / (1 << 20)
    assert (growth > 0.8 * kept) if grows else (growth < 0.1 * kept)
