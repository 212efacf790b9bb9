"""The guard: while mitmproxy reloads, loses or breaks the script, nothing is forwarded."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from gateway_process import ADDON, GatewayProcess, running_gateway
from recorder import Recorder
from stand_in_triton import write_routes

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.ml.route_file import Route, write_route
from immich_triton.triton.pipelines import Pipeline


@pytest.fixture
def gateway(upstream: Recorder, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway with an own copy of the script, and a route for OCR to a Triton that is not there."""
    script = tmp_path / "immich_ml.py"
    shutil.copy(ADDON, script)
    models = tmp_path / "models"
    (models / "ocr_rec").mkdir(parents=True)
    pipeline = Pipeline("ocr", ["detection", "recognition"], [])
    write_route(models / "ocr_rec", Route("ocr", ["PP-OCRv5_mobile"], [pipeline], "a" * 64))
    triton = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(
        tmp_path, models=models, triton_url=triton, upstream=upstream.url, script=script, immich_deadline=1
    ) as process:
        yield process


def ask(gateway: GatewayProcess) -> tuple[int, str]:
    answer = predict(gateway.url, entries_for("ocr"), image=b"image")
    return answer.status, str(answer.body)


def get(gateway: GatewayProcess, path: str) -> int:
    return requests.get(f"{gateway.url}{path}", timeout=60).status_code


def remove_script(script: Path) -> None:
    script.unlink()


def move_script(script: Path) -> None:
    script.rename(script.with_name("elsewhere.py"))


@pytest.mark.parametrize("spoilt", ["raise RuntimeError('edited into an error')\n", "addons = []\n"])
def test_nothing_is_forwarded_under_load_while_the_script_is_broken_and_repaired(
    gateway: GatewayProcess, upstream: Recorder, spoilt: str
) -> None:
    seen: list[tuple[int, str]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            seen.append(ask(gateway))

    clients = [threading.Thread(target=load) for _ in range(8)]
    for client in clients:
        client.start()
    try:
        assert eventually(lambda: any("gave no answer within" in text for _, text in seen))
        gateway.replace_script(spoilt)
        assert eventually(lambda: any("is not loaded" in text for _, text in seen))
        # What passes through otherwise does not either: nobody is there to tell what is ours.
        assert get(gateway, "/anything") == 503
        loaded = gateway.log.count("Triton answers ocr")
        gateway.replace_script(ADDON.read_text())
        assert eventually(lambda: gateway.log.count("Triton answers ocr") > loaded)
        assert eventually(lambda: "gave no answer within" in ask(gateway)[1])
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert {status for status, _ in seen} == {503}
    assert upstream.seen == []
    assert get(gateway, "/anything") == 200


@pytest.mark.parametrize("spoil", [remove_script, move_script])
def test_nothing_is_forwarded_after_the_script_is_gone(
    gateway: GatewayProcess, upstream: Recorder, spoil: Callable[[Path], None]
) -> None:
    assert get(gateway, "/anything") == 200
    forwarded = len(upstream.seen)
    spoil(gateway.script)
    assert eventually(lambda: "is not loaded" in ask(gateway)[1])
    assert get(gateway, "/anything") == 503
    assert get(gateway, "/ping") == 503
    assert len(upstream.seen) == forwarded


def gone(gateway: GatewayProcess) -> bool:
    return "is not loaded" in ask(gateway)[1]


def works(gateway: GatewayProcess) -> bool:
    """Whether a gateway is there that asks Triton, which is not."""
    return "gave no answer within" in ask(gateway)[1]


def test_a_script_that_was_touched_while_a_route_is_invalid_is_loaded_when_that_is_mended(
    gateway: GatewayProcess, upstream: Recorder
) -> None:
    route = gateway.log_file.parent / "models/ocr_rec/route.toml"
    good = route.read_text()
    route.write_text(good.replace('task = "ocr"', 'task = "pets"'))
    gateway.replace_script(ADDON.read_text())
    assert eventually(lambda: gone(gateway))
    assert "Every request gets 503 until this is mended" in gateway.log
    route.write_text(good)
    assert eventually(lambda: works(gateway))
    # And from now on as ever.
    loaded = gateway.log.count("Triton answers ocr")
    gateway.replace_script(ADDON.read_text())
    assert eventually(lambda: gateway.log.count("Triton answers ocr") > loaded)
    assert eventually(lambda: works(gateway))
    gateway.replace_script("raise RuntimeError('edited into an error')\n")
    assert eventually(lambda: gone(gateway))
    assert upstream.predictions() == []


def test_a_script_that_was_removed_and_put_back_is_loaded(gateway: GatewayProcess, upstream: Recorder) -> None:
    away = gateway.script.with_name("elsewhere.py")
    for _ in range(2):
        gateway.script.rename(away)
        assert eventually(lambda: gone(gateway))
        away.rename(gateway.script)  # with the time stamp that it had
        assert eventually(lambda: works(gateway))
    # mitmproxy looks at it again.
    loaded = gateway.log.count("Triton answers ocr")
    gateway.replace_script(ADDON.read_text())
    assert eventually(lambda: gateway.log.count("Triton answers ocr") > loaded)
    assert upstream.predictions() == []


def test_a_broken_script_is_repaired_with_an_older_file(gateway: GatewayProcess, upstream: Recorder) -> None:
    good = gateway.script.with_name("good.py")
    shutil.copy2(gateway.script, good)
    os.utime(good, (1_000_000_000, 1_000_000_000))
    gateway.replace_script("raise RuntimeError('edited into an error')\n")
    assert eventually(lambda: gone(gateway))
    good.replace(gateway.script)
    assert eventually(lambda: works(gateway))
    assert upstream.predictions() == []


ADDER = """
import asyncio
from mitmproxy import ctx

async def add():
    await asyncio.sleep(0.5)
    ctx.options.update(scripts=[*ctx.options.scripts, {script!r}])

def running():
    global task
    task = asyncio.create_task(add())
"""


def test_a_script_that_is_added_while_a_route_is_invalid_is_loaded_when_that_is_mended(
    upstream: Recorder, tmp_path: Path
) -> None:
    models = write_routes(tmp_path / "models")
    route = models / "ocr_rec/route.toml"
    good = route.read_text()
    route.write_text("task =")
    adder = tmp_path / "adder.py"
    adder.write_text(ADDER.format(script=str(ADDON)))
    with running_gateway(
        tmp_path, models=models, triton_url="http://127.0.0.1:1", upstream=upstream.url, script=adder, immich_deadline=1
    ) as gateway:
        assert eventually(lambda: gone(gateway))
        upstream.seen.clear()
        assert "its settings were refused" in gateway.log
        route.write_text(good)
        assert eventually(lambda: works(gateway))
    assert upstream.predictions() == []
