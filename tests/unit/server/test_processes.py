"""What /proc tells of processes."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.server import processes

NOBODY = 2**22 + 1
"""No process has a number above the highest (pid_max)."""


@pytest.fixture
def shell() -> Iterator[int]:
    """Give a shell with a child, in a session of its own; a name in parentheses must not confuse anybody."""
    with subprocess.Popen(["sh", "-c", "sleep 600 & wait", "a) b ("], start_new_session=True) as process:
        assert eventually(lambda: len(processes.tree(process.pid)) == 2)
        yield process.pid
        processes.kill_tree(process.pid)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_listens_on_a_port(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    (port,) = free_ports(1)
    assert processes.listener(port) is None
    with socket.create_server((host, port), family=family):
        assert processes.listener(port) == os.getpid()
        with socket.create_connection((host, port)) as connection:
            assert processes.listener(connection.getsockname()[1]) is None, "a connection does not listen"


def test_a_family_and_its_session(shell: int) -> None:
    first, child = processes.tree(shell)
    assert first == shell
    assert (processes.parent(shell), processes.parent(child)) == (os.getpid(), shell)
    assert (processes.session(shell), processes.session(child)) == (shell, shell)
    assert {shell, child} <= set(processes.pids())
    assert eventually(lambda: processes.arguments(child) == ["sleep", "600"])
    assert processes.arguments(shell) == ["sh", "-c", "sleep 600 & wait", "a) b ("]
    assert eventually(lambda: processes.state(child) == "S")


def test_memory_is_that_of_all_of_them(shell: int) -> None:
    assert eventually(lambda: processes.memory(shell).processes == 2)
    memory = processes.memory(shell)
    assert memory.rss >= memory.pss > 0
    assert memory.anonymous > 0
    assert memory.rss % 1024 == 0


def test_cpu_time_is_what_a_process_used() -> None:
    before = processes.cpu_seconds(os.getpid())

    def works() -> bool:
        return processes.cpu_seconds(os.getpid()) > before

    assert eventually(lambda: sum(range(10**5)) > 0 and works())


def test_what_is_gone_has_nothing() -> None:
    assert processes.cpu_seconds(NOBODY) == 0
    assert (processes.parent(NOBODY), processes.session(NOBODY), processes.state(NOBODY)) == (None, None, None)
    assert processes.arguments(NOBODY) == []
    assert processes.tree(NOBODY) == [NOBODY]
    with pytest.raises(ProcessLookupError, match=f"process {NOBODY} is gone"):
        processes.memory(NOBODY)
    processes.kill_tree(NOBODY)


def test_one_that_has_ended_is_a_zombie_until_somebody_waits_for_it(shell: int) -> None:
    first, child = processes.tree(shell)
    processes.kill_tree(shell)
    assert eventually(lambda: processes.state(first) == "Z")
    assert processes.arguments(first) == []
    assert eventually(lambda: processes.state(child) in (None, "Z"))


def test_an_exit_code_in_words() -> None:
    assert processes.how_it_ended(-9) == "was killed by SIGKILL"
    assert processes.how_it_ended(3) == "ended with exit code 3"
