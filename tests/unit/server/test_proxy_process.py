"""How mitmproxy is started for either product, found again and ended; a small program takes its place here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import override

import pytest

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.server.preflight import StartError
from immich_triton.server.proxy_process import (
    ProxyProcess,
    ProxySettings,
    WebInterface,
    command_line,
    given,
    listening,
)

REMEDIES = "--port N", "--metrics-port N", "--inspect-port N"


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ([], "nothing"),
        (["--set", "name=1"], "1"),
        (["--set=name=a=b"], "a=b"),
        (["--set=name="], ""),
        (["name=1"], "nothing"),
        (["--set", "other=1", "name=2"], "nothing"),
        (["--set=names=1", "--name=2"], "nothing"),
    ],
)
def test_an_option_that_mitmproxy_is_given_is_found(options: Sequence[str], value: str) -> None:
    assert given(options, "name", "nothing") == value


class Sleeper(ProxyProcess):
    """A process that does nothing."""

    @override
    def answers(self) -> bool:
        return self.running()


def settings(directory: Path, port: int = 3004, **changes: object) -> ProxySettings:
    return ProxySettings("http://up:1", "127.0.0.1", port, 9464, directory, **changes)  # type: ignore[arg-type]


@pytest.fixture
def sleeper(tmp_path: Path) -> Sleeper:
    (port,) = free_ports(1)
    own = settings(tmp_path / "run", port)
    command = [sys.executable, "-c", "import signal; signal.pause()", f"--listen-port={port}"]
    return Sleeper("sleeper", own, command, listening(own, "", "the sleeper", REMEDIES))


def test_one_that_was_never_started_neither_runs_nor_ended(sleeper: Sleeper) -> None:
    assert (sleeper.exit_code(), sleeper.running()) == (None, False)
    sleeper.terminate()
    sleeper.end()


def test_its_number_is_in_a_file_while_it_runs(sleeper: Sleeper, tmp_path: Path) -> None:
    file = tmp_path / "run/sleeper.pid"
    sleeper.reserve()
    sleeper.start()
    pid = int(file.read_text())
    assert sleeper.running()
    sleeper.terminate()
    assert eventually(lambda: sleeper.exit_code() is not None)
    sleeper.end()
    assert not file.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_one_that_a_killed_supervisor_left_is_waited_for_before_the_next(sleeper: Sleeper, tmp_path: Path) -> None:
    sleeper.start()
    pid = int((tmp_path / "run/sleeper.pid").read_text())
    os.kill(pid, 15)
    sleeper.reserve()
    assert eventually(lambda: sleeper.exit_code() is not None)
    assert not (tmp_path / "run/sleeper.pid").exists()
    sleeper.end()


def test_a_port_that_two_want_is_said_with_the_option_that_chooses_another(tmp_path: Path) -> None:
    own = settings(tmp_path, web=WebInterface(3004, "hash"))
    ports = listening(own, "[::1]:9000", "the site", REMEDIES)
    assert [(port.number, port.purpose, port.host) for port in ports] == [
        (3004, "the site", "127.0.0.1"),
        (9000, "the site's metrics", "::1"),
        (3004, "mitmweb", "127.0.0.1"),
    ]
    with pytest.raises(StartError, match="choose another one: immich-triton run --inspect-port N"):
        Sleeper("x", own, [], [ports[0], ports[2]]).reserve()


def test_what_the_user_sets_is_not_set_twice(tmp_path: Path) -> None:
    own = settings(tmp_path, options=["--set", "one=1"], web=WebInterface(8081, "$argon2id$hash"))
    command = command_line(own, Path("addon.py"), {"one": "2", "two": "3"})
    assert Path(command[0]).name == "mitmweb"
    assert command[1:] == [
        "--scripts=addon.py",
        "--mode=reverse:http://up:1",
        "--listen-host=127.0.0.1",
        "--listen-port=3004",
        "--set=two=3",
        "--no-web-open-browser",
        "--web-host=127.0.0.1",
        "--web-port=8081",
        "--set=web_password=$argon2id$hash",
        "--set",
        "one=1",
    ]
