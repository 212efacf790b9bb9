"""When the supervisor starts a proxy again, and when it gives up, or never does."""

from __future__ import annotations

from typing import Any, cast

import pytest

from immich_triton.server.preflight import StartError
from immich_triton.server.proxy_care import ProxyCare
from immich_triton.server.proxy_process import ProxyProcess


class Gateway:
    """A gateway that dies when it is told to; ``strange`` when mitmproxy runs without our addon."""

    def __init__(self) -> None:
        self.starts = 0
        self.code: int | None = None
        self.strange = False
        self.full = False

    def start(self) -> None:
        if self.full:
            raise OSError("No space left on device")
        self.starts += 1
        self.code = None

    def exit_code(self) -> int | None:
        return self.code

    def answers(self) -> bool:
        if self.strange:
            raise StartError("mitmproxy runs without the addon")
        return self.code is None

    def end(self) -> None:
        pass


class Site:
    """A gateway in care, and a clock that is set by hand."""

    def __init__(self, name: str = "the gateway") -> None:
        self.now = 1000.0
        self.said: list[str] = []
        self.gateway = Gateway()
        proxy = cast("ProxyProcess", cast("Any", self.gateway))
        self.care = ProxyCare(proxy, self.said.append, lambda: self.now, name=name)
        self.care.start()

    def live(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.care.poll()

    def pause_after_death(self) -> float:
        """Let it die, and return how long it takes until it is started again."""
        starts, began = self.gateway.starts, self.now
        self.gateway.code = -9
        self.care.poll()
        while self.gateway.starts == starts:
            self.live(0.125)
        return self.now - began


@pytest.fixture
def site() -> Site:
    site = Site()
    site.live(1)
    assert site.care.up
    return site


def test_the_pauses_grow(site: Site) -> None:
    pauses = []
    for _ in range(9):
        site.live(16)
        pauses.append(site.pause_after_death())
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_one_that_was_well_for_a_minute_counts_anew(site: Site) -> None:
    for _ in range(3):
        site.live(20)
        site.pause_after_death()
    site.live(1)
    site.live(60)
    assert site.pause_after_death() == 0.5


def test_one_that_never_came_up_is_given_up() -> None:
    site = Site()
    site.gateway.code = 1
    with pytest.raises(StartError, match="ended with exit code 1 before it was ever ready"):
        site.care.poll()


def test_the_fifth_death_within_a_minute_is_the_last(site: Site) -> None:
    for _ in range(4):
        site.live(1)
        site.pause_after_death()
    site.gateway.code = 1
    with pytest.raises(StartError, match="5th time within 60 s"):
        site.live(1)


def test_one_that_came_back_without_the_addon_is_ended(site: Site) -> None:
    site.gateway.strange = True
    site.pause_after_death()
    starts = site.gateway.starts
    site.live(1)
    site.gateway.strange = False
    site.live(2)
    assert site.gateway.starts == starts + 1
    assert any("mitmproxy runs without the addon; starting it again" in line for line in site.said)


def test_a_start_that_this_machine_refuses_is_tried_again(site: Site) -> None:
    site.gateway.full = True
    site.gateway.code = -9
    site.care.poll()
    site.live(1)
    assert "cannot be started: No space left on device; starting it again in 1 s, Triton goes on" in site.said
    site.gateway.full = False
    site.live(1)
    site.live(1)
    assert site.care.up


def test_one_that_is_never_given_up_may_die_as_often_as_it_likes_and_at_the_start() -> None:
    site = Site(name="")
    pauses = [site.pause_after_death() for _ in range(9)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    said = "was killed by SIGKILL before it ever answered; its last lines above say why; starting it again in 0.5 s"
    assert site.said[0] == f"{said}, Triton goes on"
    site.live(1)
    assert site.care.up
    for _ in range(9):
        site.live(1)
        site.pause_after_death()


def test_one_that_is_never_given_up_and_has_lost_its_addon_is_started_again() -> None:
    site = Site(name="")
    site.gateway.strange = True
    site.live(1)
    site.gateway.strange = False
    site.live(1)
    site.live(1)
    assert site.care.up
    assert "mitmproxy runs without the addon before it ever answered" in site.said[0]
