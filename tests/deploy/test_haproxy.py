"""deploy/haproxy: HAProxy takes the file, and it waits no less than the gateway does."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Final

import pytest
from places import PROJECT

from immich_triton.ml.settings import Settings

FILE: Final = PROJECT / "deploy/haproxy/haproxy.cfg"
TEXT: Final = FILE.read_text(encoding="utf-8")


def test_haproxy_takes_the_file() -> None:
    if (haproxy := shutil.which("haproxy")) is None:
        pytest.skip("HAProxy is not installed: apt-get install haproxy")
    done = subprocess.run([haproxy, "-c", "-f", FILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_is_the_gateway_that_decides_how_long_to_wait() -> None:
    for side in ("client", "server"):
        (seconds,) = re.findall(rf"timeout {side} (\d+)s", TEXT)
        assert int(seconds) > Settings().deadline


def test_nothing_that_was_sent_is_sent_again_behind_the_gateways_back() -> None:
    assert re.findall(r"retry-on (.*)", TEXT) == ["conn-failure"]


def test_it_asks_for_models_and_not_whether_the_server_lives() -> None:
    (asked,) = re.findall(r"meth GET uri (\S+)", TEXT)
    assert asked == "/v2/models/ocr/ready"
    assert (PROJECT / "triton_models/ocr/config.pbtxt").is_file()
