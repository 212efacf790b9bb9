"""What an embedded Triton is started with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from immich_triton.server.triton_settings import TritonSettings

SETTINGS = TritonSettings(Path("models"), 8000, 8002, Path("/run/a"), key="a secret")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("10.0.0.1", "http://10.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
    ],
)
def test_its_address_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert replace(SETTINGS, host=host).url == url


def test_both_ports_are_checked_where_it_listens() -> None:
    ports = replace(SETTINGS, host="0.0.0.0", port_remedy="choose others").ports
    assert [(port.number, port.host, port.remedy) for port in ports] == [
        (8000, "0.0.0.0", "choose others"),
        (8002, "0.0.0.0", "choose others"),
    ]


def test_metrics_can_be_for_other_machines_while_the_server_is_not() -> None:
    own = replace(SETTINGS, metrics_host="0.0.0.0")
    assert [(port.number, port.host) for port in own.ports] == [(8000, "127.0.0.1"), (8002, "0.0.0.0")]
    assert own.metrics_url == "http://127.0.0.1:8002/metrics"


def test_its_shared_memory_is_told_from_that_of_all_others() -> None:
    prefixes = {
        SETTINGS.shm_prefix,
        replace(SETTINGS, http_port=8001).shm_prefix,
        replace(SETTINGS, run_dir=Path("/run/b")).shm_prefix,
    }
    assert len(prefixes) == 3
    assert all(prefix.startswith("immich_triton_") and "/" not in prefix for prefix in prefixes)
    assert replace(SETTINGS, models=Path("others")).shm_prefix == SETTINGS.shm_prefix, "after a restart it is the same"


def test_the_key_is_not_shown() -> None:
    assert "a secret" not in repr(SETTINGS)
