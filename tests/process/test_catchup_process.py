"""After an outage Immich is asked to run what is missing, by a gateway in its own process."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from catching_up import KEY, Immich, immich_server, routes
from gateway_process import GatewayProcess, kept, running_gateway
from recorder import Recorder
from stand_in_triton import StandInTriton, write_routes

from harness.program import eventually
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.ml.outages import Outages


@pytest.fixture
def immich() -> Iterator[Immich]:
    with immich_server() as server:
        yield server


def break_down(triton: StandInTriton) -> None:
    triton.behaviour[""] = "503"
    triton.unready |= {"ocr_rec", "visual", "textual"}


def recover(triton: StandInTriton) -> None:
    triton.behaviour.clear()
    triton.unready.clear()


def gateway(
    triton: StandInTriton, upstream: Recorder, immich: Immich, directory: Path
) -> AbstractContextManager[GatewayProcess]:
    return running_gateway(
        directory,
        models=routes(directory),
        triton_url=triton.url,
        upstream=upstream.url,
        immich_deadline=4,
        immich_query_deadline=4,
        immich_api_url=immich.url,
        immich_api_key=kept(directory, KEY),
    )


def ask_ocr(process: GatewayProcess) -> int:
    return predict(process.url, entries_for("ocr"), image=b"image").status


def test_an_outage_is_caught_up_on_once_also_over_restarts(
    triton: StandInTriton, upstream: Recorder, immich: Immich, tmp_path: Path
) -> None:
    with gateway(triton, upstream, immich, tmp_path) as process:
        assert ask_ocr(process) == 200
        break_down(triton)
        with ThreadPoolExecutor(4) as pool:
            # A query is lost to nobody but the person who asks again; a photo is.
            query = pool.submit(predict, process.url, entries_for("clip-text"), text="猫")
            assert set(pool.map(ask_ocr, [process] * 3)) == {503}
            assert query.result().status == 503
        assert immich.asked == []
        assert eventually(lambda: "ocr: to be caught up on" in process.log)
        assert "clip: to be caught up on" not in process.whole_log()
        process.process.kill()
        process.process.wait()
    # The start after the kill counts as an outage of all that is routed.
    with gateway(triton, upstream, immich, tmp_path) as process:
        assert predict(process.url, entries_for("clip"), image=b"image").status == 503
        assert immich.asked == []
        recover(triton)
        # With no mark left there is nothing that Immich could be asked for once more.
        assert eventually(lambda: len(immich.asked) >= 2 and Outages(process.state_dir).marks() == {}, 60)
        assert sorted(immich.queues) == ["ocr", "smartSearch"]
        assert {method for method, _, _ in immich.asked} == {"PUT"}
        assert [body for _, _, body in immich.asked] == [{"command": "start", "force": False}] * 2
        assert ask_ocr(process) == 200
        assert len(immich.asked) == 2
        log = process.whole_log()
        assert KEY not in log
        assert "ocr: photos that fail in a run of All are not found by Missing" in log


def test_a_refused_connection_may_have_been_a_photo(triton: StandInTriton, upstream: Recorder, tmp_path: Path) -> None:
    models = write_routes(tmp_path / "models")
    with (
        running_gateway(
            tmp_path, models=models, triton_url=triton.url, upstream=upstream.url, immich_max_connections=1
        ) as gateway,
        contextlib.ExitStack() as clients,
    ):
        for _ in range(5):
            clients.enter_context(socket.create_connection(gateway.address, 60))
        assert eventually(lambda: "photos may have been refused (connections, not answered)" in gateway.log)
        assert Outages(gateway.state_dir).marks().keys() == {"clip", "ocr"}
