"""How a gateway is started and asked; that it is told from a mere mitmproxy: test_gateway_supervision.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from background_loop import in_background

from harness.ports import free_ports
from immich_triton.server.gateway_process import ADDON, GatewayProcess, GatewaySettings
from immich_triton.server.preflight import StartError
from immich_triton.server.proxy_process import WebInterface


def settings(directory: Path = Path("run"), **changes: Any) -> GatewaySettings:
    own = GatewaySettings(
        upstream="http://ml:3003",
        host="0.0.0.0",
        port=3004,
        metrics_port=9464,
        run_dir=directory,
        triton_url="http://127.0.0.1:8000",
        models=Path("models"),
    )
    return replace(own, **changes)


def test_the_command_line() -> None:
    command = settings().command
    assert Path(command[0]).name == "mitmdump"
    assert command[1:] == [
        f"--scripts={ADDON}",
        "--mode=reverse:http://ml:3003",
        "--listen-host=0.0.0.0",
        "--listen-port=3004",
        "--set=immich_triton_url=http://127.0.0.1:8000",
        "--set=immich_models=models",
        "--set=immich_metrics_listen=127.0.0.1:9464",
    ]
    assert ADDON.is_file()


def test_what_the_user_sets_is_not_set_twice() -> None:
    options = ["--set", "immich_triton_url=http://gpu:8000", "--set=immich_metrics_listen=[::1]:9000"]
    own = settings(options=options)
    assert own.command[-3:] == options
    assert sum("immich_triton_url" in argument for argument in own.command) == 1
    assert own.metrics == "[::1]:9000"
    assert [(port.number, port.host) for port in own.ports] == [(3004, "0.0.0.0"), (9000, "::1")]


@pytest.mark.parametrize(("host", "address"), [("0.0.0.0", "0.0.0.0:9464"), ("::", "[::]:9464")])
def test_metrics_can_be_for_other_machines(host: str, address: str) -> None:
    own = settings(metrics_host=host)
    assert own.metrics == address
    assert [(port.number, port.host) for port in own.ports] == [(3004, "0.0.0.0"), (9464, host)]


def test_without_metrics_there_is_one_port() -> None:
    own = settings(metrics_port=None)
    assert (own.metrics, len(own.ports)) == ("", 1)
    assert "--set=immich_metrics_listen=" in own.command


def test_mitmweb_is_for_this_machine_and_wants_a_password() -> None:
    own = settings(web=WebInterface(8081, "$argon2id$hash"))
    assert Path(own.command[0]).name == "mitmweb"
    assert {"--web-host=127.0.0.1", "--web-port=8081", "--set=web_password=$argon2id$hash"} < set(own.command)
    assert [port.number for port in own.ports] == [3004, 9464, 8081]


def test_two_of_its_ports_cannot_be_one(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with pytest.raises(StartError, match="cannot share port"):
        GatewayProcess(settings(tmp_path, host="127.0.0.1", port=port, metrics_port=port)).reserve()


def test_one_that_was_never_started_neither_runs_nor_ended(tmp_path: Path) -> None:
    gateway = GatewayProcess(settings(tmp_path))
    assert (gateway.exit_code(), gateway.running()) == (None, False)
    gateway.terminate()
    gateway.end()


class Answers:
    """What listens where the gateway should; it gives the request id back as ours does, unless told otherwise."""

    def __init__(self) -> None:
        self.port = 0
        self.paths: dict[str, tuple[int, str]] = {}
        self.gives_id_back = True

    async def handle(self, request: web.Request) -> web.Response:
        status, text = self.paths[request.path]
        headers = {"X-Request-ID": request.headers["X-Request-ID"]} if self.gives_id_back else {}
        return web.Response(status=status, text=text, headers=headers)

    def gateway(self, directory: Path, *, metrics: bool = True) -> GatewayProcess:
        return GatewayProcess(
            settings(directory, host="127.0.0.1", port=self.port, metrics_port=self.port if metrics else None)
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Answers]:
    answers = Answers()
    app = web.Application()
    app.router.add_get("/{tail:.*}", answers.handle)
    with in_background(app) as url:
        answers.port = urlsplit(url).port or 0
        yield answers


@pytest.mark.parametrize(
    ("ping", "readyz", "reason"),
    [
        ((200, "pong"), (500, ""), None),
        ((503, '{"detail":"ocr: away"}'), (200, ""), '{"detail":"ocr: away"}'),
        # Behind a path token it is told nothing, and asks beside it.
        ((404, "Not Found"), (200, "{}"), None),
        ((404, ""), (503, json.dumps({"unready": {"ocr": "away", "faces": "too"}})), "ocr: away; faces: too"),
    ],
)
def test_why_it_is_not_ready(
    server: Answers, tmp_path: Path, ping: tuple[int, str], readyz: tuple[int, str], reason: str | None
) -> None:
    server.paths, server.gives_id_back = {"/ping": ping, "/readyz": readyz}, True
    gateway = server.gateway(tmp_path)
    assert gateway.why_not_ready() == reason
    assert gateway.answers()


def test_behind_a_token_and_without_metrics_nobody_can_tell(server: Answers, tmp_path: Path) -> None:
    server.paths, server.gives_id_back = {"/ping": (404, "")}, True
    assert server.gateway(tmp_path, metrics=False).why_not_ready() is None


def test_who_does_not_give_the_id_back_is_not_ours(server: Answers, tmp_path: Path) -> None:
    server.paths, server.gives_id_back = {"/ping": (200, "pong")}, False
    for ask in (server.gateway(tmp_path).why_not_ready, server.gateway(tmp_path).answers):
        with pytest.raises(StartError, match="mitmproxy runs without"):
            ask()


def test_nobody_there_does_not_answer(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    gateway = GatewayProcess(settings(tmp_path, host="127.0.0.1", port=port, metrics_port=None))
    assert not gateway.answers()
    assert "it does not answer: " in (gateway.why_not_ready() or "")
