"""``immich-triton run``: the real mitmproxy in front of the real Triton."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from small_models import write_model, write_ocr_route
from supervised import Supervised

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.cli import health

pytestmark = pytest.mark.xdist_group("supervisor")


Launch = Callable[..., Supervised]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_ocr_route(write_model(models, "echo"))
    return models


@pytest.fixture(scope="module")
def launch(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Give ``launch(*arguments)``: start an instance on free ports, without waiting. Later arguments win."""
    started: list[Supervised] = []

    def start(*arguments: object) -> Supervised:
        started.append(Supervised.start(models, tmp_path_factory.mktemp("run"), *arguments))
        return started[-1]

    yield start
    for instance in started:
        instance.program.stop()


@pytest.fixture(scope="module")
def instance(launch: Launch) -> Supervised:
    instance = launch()
    instance.program.wait_until(instance.up)
    return instance


def refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def test_both_answer(instance: Supervised) -> None:
    assert requests.get(f"{instance.url}/ping", timeout=5).text == "pong"
    assert requests.get(f"{instance.triton_url}/v2/models/echo/ready", timeout=5).ok


def test_says_what_listens_where_and_what_is_routed(instance: Supervised) -> None:
    console = instance.program.console
    assert re.search(rf"Immich asks +{instance.url}\n", console)
    assert requests.get(re.findall(r"metrics +(http://127.0.0.1:\d+/metrics)", console)[0], timeout=5).ok
    assert re.search(rf"Triton +{instance.triton_url}, metrics", console)
    assert re.search(r"routed +ocr PP-OCRv5_mobile -> echo", console)
    assert re.search(r"passes through +everything else, to http://127.0.0.1:\d+ \(nothing answers there now", console)


def test_without_an_upstream_what_would_pass_gets_a_502(instance: Supervised) -> None:
    assert requests.get(f"{instance.url}/", timeout=5).status_code == 502


def test_options_reach_mitmproxy(instance: Supervised) -> None:
    assert b"immich_query_deadline=7" in Path(f"/proc/{instance.gateway_pid}/cmdline").read_bytes()


def test_the_gateway_survives_a_killed_triton(instance: Supervised) -> None:
    gateway, triton = instance.gateway_pid, instance.triton_pid
    os.kill(triton, signal.SIGKILL)
    assert eventually(lambda: not (instance.run_dir / "triton/triton.pid").exists() or instance.triton_pid != triton)
    assert eventually(lambda: requests.get(f"{instance.url}/ping", timeout=5).ok)
    assert instance.gateway_pid == gateway


def test_a_gateway_that_dies_is_started_again_and_catches_up_while_triton_goes_on(launch: Launch) -> None:
    instance = launch()
    instance.program.wait_until(instance.up)
    gateway, triton = instance.gateway_pid, instance.triton_pid
    os.kill(gateway, signal.SIGKILL)
    console = instance.program
    console.wait_until(lambda: "gateway: answers again after" in console.console)
    assert "gateway: was killed by SIGKILL; starting it again in 0.5 s, Triton goes on" in console.console
    assert instance.gateway_pid != gateway
    assert eventually(lambda: requests.get(f"{instance.url}/ping", timeout=5).text == "pong")
    # What Immich sent meanwhile is lost to it.
    assert eventually(lambda: "ocr: to be caught up on: the last run did not end in peace" in console.console)
    assert instance.triton_pid == triton
    assert console.console.count("triton: echo loaded") == 1
    assert instance.program.stop() == 0


def test_a_gateway_that_dies_again_and_again_ends_everything_with_an_error(launch: Launch) -> None:
    instance = launch()
    instance.program.wait_until(instance.up)
    killed: set[int] = set()

    def kill_what_comes() -> bool:
        with contextlib.suppress(OSError, ValueError):  # between two of them there is none
            if (pid := instance.gateway_pid) not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        return instance.program.process.poll() is not None

    assert eventually(kill_what_comes, 120)
    assert instance.program.process.wait(60) == 1
    assert "error: the gateway was killed by SIGKILL, the 5th time within 60 s" in instance.program.console
    assert len(killed) == 5
    assert refuses(instance.triton_url)


def test_a_gateway_that_never_came_up_ends_everything_with_an_error(launch: Launch) -> None:
    instance = launch("--options=--set immich_deadline=0")
    assert instance.program.process.wait(120) == 1
    assert "error: the gateway ended with exit code 1 before it was ever ready" in instance.program.console
    assert refuses(instance.triton_url)


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_succeeds(launch: Launch) -> None:
    first = launch()
    first.program.wait_until(first.up)
    processes = [Path(f"/proc/{pid}") for pid in (first.gateway_pid, first.triton_pid)]
    first.program.process.kill()
    first.program.process.wait()
    port, triton_port = (url.rsplit(":", 1)[1] for url in (first.url, first.triton_url))
    second = launch("--run-dir", first.run_dir, "--port", port, "--triton-http-port", triton_port)
    second.program.wait_until(second.up)
    # Whoever adopts the dead may take a moment to bury them.
    assert eventually(lambda: not any(process.exists() for process in processes))
    assert requests.get(f"{first.url}/ping", timeout=5).text == "pong"
    assert second.program.stop() == 0


def test_ctrl_c_stops_the_gateway_first_and_then_triton(launch: Launch, instance: Supervised) -> None:
    second = launch()  # beside the first
    second.program.wait_until(second.up)
    gateway, triton = (Path(f"/proc/{pid}") for pid in (second.gateway_pid, second.triton_pid))
    log = second.run_dir / "triton/triton.log"
    os.killpg(second.program.process.pid, signal.SIGINT)  # the terminal tells the whole group
    while second.program.process.poll() is None:
        triton_was_told = "Signal (15) received" in log.read_text()
        assert not (triton_was_told and gateway.exists())
    assert second.program.process.returncode == 0
    assert not gateway.exists()
    assert not triton.exists()
    assert refuses(second.url)
    assert refuses(second.triton_url)
    assert "All models are stopped, unloading models" in log.read_text()
    assert second.program.console.endswith("stopped\n")
    assert requests.get(f"{instance.url}/ping", timeout=5).ok


def test_web_interface_asks_for_the_printed_password(launch: Launch) -> None:
    (port,) = free_ports(1)
    instance = launch("--inspect", "--inspect-port", port)
    instance.program.wait_until(lambda: "password" in instance.program.console)
    found = re.search(rf"mitmweb +(http://127.0.0.1:{port}/)  password (\S+)", instance.program.console)
    assert found
    url, password = found.groups()
    assert requests.get(url, timeout=5).status_code == 403
    assert requests.get(url, headers={"Authorization": f"Bearer {password}"}, timeout=5).ok
    assert password.encode() not in Path(f"/proc/{instance.gateway_pid}/cmdline").read_bytes()
    assert requests.get(f"{instance.url}/ping", timeout=5).text == "pong"
    assert instance.program.stop() == 0


@pytest.mark.parametrize("option", ["--port", "--metrics-port", "--triton-http-port", "--triton-metrics-port"])
def test_a_port_in_use_is_named_before_anything_starts(launch: Launch, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        instance = launch(option, port)
        assert instance.program.process.wait(60) == 1
    assert re.search(
        rf"error: cannot listen on 127.0.0.1:{port} .*immich-triton run .*{option} N", instance.program.console
    )
    assert not (instance.run_dir / "triton/triton.log").exists()


def test_one_port_for_gateway_and_triton_is_refused(launch: Launch) -> None:
    (port,) = free_ports(1)
    instance = launch("--port", port, "--triton-http-port", port)
    assert instance.program.process.wait(60) == 1
    assert f"cannot share port {port}" in instance.program.console


@pytest.mark.parametrize("upstream", ["127.0.0.1:3003", "ftp://ml", "http://ml:3003/predict", "http://ml:none"])
def test_an_upstream_that_is_no_address_is_refused(launch: Launch, upstream: str) -> None:
    instance = launch("--upstream", upstream)
    assert instance.program.process.wait(60) == 1
    assert f"--upstream must look like http://127.0.0.1:3003, not {upstream!r}" in instance.program.console


def test_an_option_that_mitmproxy_does_not_know_ends_with_its_message(launch: Launch) -> None:
    instance = launch("--options=--no-such-option")
    assert instance.program.process.wait(60) == 1
    assert "--no-such-option" in instance.program.console
    assert refuses(instance.triton_url)


def test_what_the_gateway_says_is_seen_at_once(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    instance = launch()
    instance.program.wait_until(instance.up)
    assert "Triton answers ocr PP-OCRv5_mobile" in instance.program.console  # mitmproxy's own log


def test_metrics_can_be_for_other_machines_while_triton_is_not(launch: Launch) -> None:
    instance = launch("--metrics-host", "0.0.0.0")
    instance.program.wait_until(instance.up)
    command = Path(f"/proc/{instance.triton_pid}/cmdline").read_text().split("\0")
    assert {"--http-address=127.0.0.1", "--metrics-address=0.0.0.0"} < {*command}
    assert re.search(r"metrics +http://0\.0\.0\.0:\d+/metrics", instance.program.console)


def test_metrics_can_be_left_out(launch: Launch) -> None:
    instance = launch("--metrics-port", "")
    instance.program.wait_until(instance.up)
    assert re.search(r"metrics +none\n", instance.program.console)


@pytest.mark.parametrize("option", ["immich_triton_url=http://127.0.0.1:9", "immich_models=/tmp"])
def test_what_follows_from_other_settings_is_refused_with_the_way_to_do_it(launch: Launch, option: str) -> None:
    instance = launch(f"--options=--set {option}")
    assert instance.program.process.wait(60) == 1
    assert f"error: {option.partition('=')[0]} cannot be set in --options: " in instance.program.console


def test_mt_photos_is_answered_beside_the_gateway_and_each_survives_the_other(launch: Launch) -> None:
    port, metrics_port = free_ports(2)
    instance = launch("--mt-photos", "--mt-photos-port", port, "--mt-photos-metrics-port", metrics_port)
    instance.program.wait_until(instance.up)
    url = f"http://127.0.0.1:{port}"
    assert f"MT-Photos asks   {url}, metrics http://127.0.0.1:{metrics_port}/metrics" in instance.program.console
    answer = requests.post(f"{url}/check", headers={"api-key": "mt_photos_ai_extra"}, timeout=10)
    assert answer.json()["result"] == "pass"
    assert health.main(["--run-dir", str(instance.run_dir)]) == 0
    assert health.addresses(instance.run_dir)[1:] == [f"http://127.0.0.1:{metrics_port}/readyz"]
    gateway = instance.gateway_pid
    other = instance.run_dir / "mt_photos/gateway.pid"
    os.kill(int(other.read_text()), signal.SIGKILL)
    instance.program.wait_until(lambda: "mt-photos: answers again after" in instance.program.console)
    assert requests.get(f"{url}/ping", timeout=10).text == "pong"
    assert instance.gateway_pid == gateway
    assert instance.program.stop() == 0
    assert refuses(url)
