"""Ports that tests hand to servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from places import PROJECT

from harness.ports import free_ports

OTHER = """
import sys, time
from harness.ports import free_ports
print(*free_ports(400), flush=True)
sys.stdin.read()
"""


def other() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "scripts/lab")}
    line = [sys.executable, "-c", OTHER]
    return subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_no_port_is_given_twice_also_by_another_process() -> None:
    # So many of some 20,000 that three who choose by chance would not miss each other.
    with other() as one, other() as another:
        assert one.stdout
        assert another.stdout
        given = [*free_ports(50), *map(int, f"{one.stdout.readline()} {another.stdout.readline()}".split())]
        given += free_ports(50)
    assert len(given) == len(set(given)) == 900


def test_a_given_port_can_be_listened_on_and_is_not_one_of_those_for_connections() -> None:
    for port in free_ports(3):
        assert port < 32_768
        with socket.create_server(("127.0.0.1", port)):
            pass
