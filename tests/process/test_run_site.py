"""``immich-triton run --web``: both products under one supervisor, and neither takes the other down."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from immich_site import ImmichSite, running_site
from small_models import write_model, write_ocr_route
from supervised import Supervised

from harness.ports import free_ports
from harness.program import Program, eventually
from immich_triton.immich.site_ping import PING, PONG

pytestmark = pytest.mark.xdist_group("supervisor")


def answers(url: str) -> str:
    """Return what is answered there; nothing when nobody does."""
    try:
        return requests.get(url, timeout=5).text
    except requests.ConnectionError:
        return ""


@dataclass
class WithSite:
    """A running `immich-triton run --web`."""

    supervised: Supervised
    site_url: str

    @property
    def program(self) -> Program:
        return self.supervised.program

    def site_answers(self) -> bool:
        return answers(f"{self.site_url}{PING}") == PONG


Launch = Callable[..., WithSite]


@pytest.fixture(scope="module")
def immich() -> Iterator[ImmichSite]:
    with running_site() as double:
        yield double


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_ocr_route(write_model(models, "echo"))
    return models


@pytest.fixture
def launch(models: Path, immich: ImmichSite, tmp_path: Path) -> Iterator[Launch]:
    """Give ``launch(*arguments)``: start one on free ports, without waiting. Later arguments win."""
    started: list[WithSite] = []

    def start(*arguments: object) -> WithSite:
        port, metrics = free_ports(2)
        site = ["--web", immich.url, "--web-port", port, "--web-metrics-port", metrics]
        supervised = Supervised.start(models, tmp_path / f"run{len(started)}", *site, *arguments)
        started.append(WithSite(supervised, f"http://127.0.0.1:{port}"))
        return started[-1]

    yield start
    for instance in started:
        instance.program.stop()


def test_both_are_up_each_dies_alone_and_they_end_together(launch: Launch) -> None:
    (page,) = free_ports(1)
    instance = launch("--web-options=--set web_depth=17", "--web-inspect", "--web-inspect-port", page)
    program = instance.program
    program.wait_until(lambda: instance.supervised.up() and instance.site_answers())
    assert answers(f"{instance.supervised.url}/ping") == "pong"
    assert "Immich" in answers(f"{instance.site_url}/")
    found = re.search(rf"people go to +{instance.site_url}, in front of \S+, metrics (\S+)/metrics", program.console)
    assert found
    assert "immich_site_build_info" in answers(f"{found[1]}/metrics")
    assert b"web_depth=17" in Path(f"/proc/{instance.supervised.pid('site.pid')}/cmdline").read_bytes()

    mitmweb = re.search(rf"site: mitmweb at (http://127.0.0.1:{page}/)  password (\S+)", program.console)
    assert mitmweb
    assert requests.get(mitmweb[1], timeout=5).status_code == 403
    assert requests.get(mitmweb[1], headers={"Authorization": f"Bearer {mitmweb[2]}"}, timeout=5).ok

    site, gateway = instance.supervised.pid("site.pid"), instance.supervised.pid("gateway.pid")
    os.kill(site, signal.SIGKILL)
    program.wait_until(lambda: "site: answers again after" in program.console)
    said = "site: was killed by SIGKILL; starting it again in 0.5 s, the machine learning goes on"
    assert said in program.console
    assert (instance.supervised.pid("site.pid") != site, instance.supervised.pid("gateway.pid")) == (True, gateway)

    site = instance.supervised.pid("site.pid")
    os.kill(gateway, signal.SIGKILL)
    program.wait_until(lambda: "gateway: answers again after" in program.console)
    assert instance.supervised.pid("site.pid") == site

    assert program.stop() == 0
    assert not (instance.supervised.run_dir / "site.pid").exists()
    assert not Path(f"/proc/{site}").exists()
    assert not instance.site_answers()
    assert "Traceback" not in program.console


def test_a_machine_learning_that_cannot_start_is_tried_again_and_the_site_goes_on(launch: Launch) -> None:
    instance = launch("--options=--set immich_deadline=0")
    program = instance.program
    program.wait_until(lambda: program.console.count("the machine learning is started anew in ") >= 2)
    assert "error: the gateway ended with exit code 1 before it was ever ready" in program.console
    assert eventually(instance.site_answers)
    assert program.console.count("site: starting") == 1
    assert program.stop() == 0


def test_a_site_that_cannot_start_is_tried_again_and_the_machine_learning_goes_on(launch: Launch) -> None:
    instance = launch("--web-options=--set web_depth=0")
    program = instance.program
    program.wait_until(instance.supervised.up)
    program.wait_until(lambda: program.console.count("site: ended with exit code 1 before it ever answered") >= 2)
    assert "web_depth must lie between 1 and 1000" in program.console
    assert answers(f"{instance.supervised.url}/ping") == "pong"
    assert program.stop() == 0


def test_neither_outlives_a_killed_supervisor(launch: Launch) -> None:
    instance = launch()
    instance.program.wait_until(lambda: instance.supervised.up() and instance.site_answers())
    processes = [
        Path(f"/proc/{instance.supervised.pid(name)}") for name in ("site.pid", "gateway.pid", "triton/triton.pid")
    ]
    instance.program.process.kill()
    instance.program.process.wait()
    assert eventually(lambda: not any(process.exists() for process in processes))


def test_requests_in_flight_get_their_answer_before_the_end(launch: Launch, immich: ImmichSite) -> None:
    """Also while the machine learning is not up yet: the site is there first."""
    instance = launch()
    program = instance.program
    program.wait_until(instance.site_answers)
    immich.held.add("/held")
    got: list[int] = []
    client = threading.Thread(
        target=lambda: got.append(requests.get(f"{instance.site_url}/held", timeout=120).status_code)
    )
    client.start()
    try:
        assert eventually(lambda: bool(immich.of("/held")))
        program.process.send_signal(signal.SIGTERM)
        program.wait_until(lambda: "stopping: waiting for requests in flight" in program.console)
        assert program.process.poll() is None
        assert eventually(lambda: not instance.site_answers())  # nobody new is let in
    finally:
        immich.held.clear()
    client.join(60)
    assert got == [200]
    assert program.process.wait(60) == 0


@pytest.mark.parametrize("option", ["--web-port", "--web-metrics-port"])
def test_a_port_in_use_is_named_before_anything_starts(launch: Launch, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        instance = launch(option, port)
        assert instance.program.process.wait(60) == 1
    assert re.search(rf"error: cannot listen on 127.0.0.1:{port} for the site.*{option} N", instance.program.console)
    assert not (instance.supervised.run_dir / "triton/triton.log").exists()


def test_one_port_for_both_products_is_refused(launch: Launch) -> None:
    (port,) = free_ports(1)
    instance = launch("--port", port, "--web-port", port)
    assert instance.program.process.wait(60) == 1
    assert f"the gateway and the site cannot share port {port}" in instance.program.console
