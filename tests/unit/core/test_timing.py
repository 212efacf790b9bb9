"""``Server-Timing``, as it is written and as it is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mitmproxy.http import Response

from immich_triton.core import timing
from immich_triton.core.observer import RequestDone, RouteTaken, Timing


@pytest.mark.parametrize(
    ("route", "clock", "parts"),
    [
        ("triton", Timing(0.1, 0.9), {"total": 1.5, "wait": 0.1, "triton": 0.9, "gateway": 0.5}),
        ("split", Timing(0.1, 0.9, 0.25), {"total": 1.5, "wait": 0.1, "triton": 0.9, "upstream": 0.25}),
        ("none", Timing(), {"total": 1.5}),
    ],
)
def test_what_is_written_is_read(route: RouteTaken, clock: Timing, parts: dict[str, float]) -> None:
    response = Response.make(200)
    timing.announce(response, RequestDone(("ocr",), route, True, 200, "ok", 1.5, clock))
    assert timing.parse(response.headers) == pytest.approx(parts)


def test_who_answered_does_not_depend_on_who_was_asked() -> None:
    asked_both = RequestDone(("ocr",), "triton", True, 200, "ok", 1.5, Timing(0.1, 0.9, 0.25))
    for done, who in (
        (asked_both, "triton"),
        (replace(asked_both, fell_back=("ocr",)), "fallback"),
        (replace(asked_both, route="none"), "stranger"),
    ):
        response = Response.make(200)
        timing.announce(response, done)
        assert timing.who_answered(response.headers) == who
        assert ("fell back: ocr" in timing.describe(done)) == (who == "fallback")
    assert timing.who_answered({}) == "stranger"


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("", {}),
        (" , ;", {}),
        ("cdn-cache; desc=HIT", {"cdn-cache": 0.0}),
        ('db;desc="the base" ; dur=53.2, app;dur=oops,upstream', {"db": 0.0532, "app": 0.0, "upstream": 0.0}),
    ],
)
def test_what_another_server_wrote_is_read_as_far_as_it_can_be(header: str, parts: dict[str, float]) -> None:
    assert timing.parse({"Server-Timing": header}) == pytest.approx(parts)
    assert timing.parse({}) == {}
