"""Which routes sleep, with a clock that is set by hand."""

from __future__ import annotations

import pytest

from immich_triton.server.idle import SLOW_SECONDS, Idle, Nap

ROUTES = {
    "ocr_rec": ("ocr_det", "ocr_rec", "ocr"),
    "see_a": ("see_a", "clip_image", "read_a", "clip_text"),
    "see_b": ("see_b", "clip_image", "read_b", "clip_text"),
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def idle(clock: Clock) -> Idle:
    idle = Idle(10, clock)
    idle.follow(ROUTES)
    idle.begin([model for models in ROUTES.values() for model in models])
    idle.report(loading=(), failed={})
    return idle


def is_well(_model: str) -> bool:
    return True


def asleep(idle: Idle) -> set[str]:
    return {model for model, state in idle.states().models.items() if state == "asleep"}


def test_a_route_sleeps_when_nobody_asked_for_so_long(idle: Idle, clock: Clock) -> None:
    clock.now = 599
    assert idle.naps(is_well) == []
    idle.use("see_a")
    idle.use("see_b")
    clock.now = 600
    assert idle.naps(is_well) == [Nap("ocr_rec", ("ocr_det", "ocr_rec", "ocr"))]
    assert asleep(idle) == set(ROUTES["ocr_rec"])
    assert idle.naps(is_well) == [], "it sleeps already"
    assert idle.to_load() == set()


def test_nothing_sleeps_with_0_minutes(clock: Clock) -> None:
    idle = Idle(0, clock)
    idle.follow(ROUTES)
    clock.now = 1e9
    assert idle.naps(is_well) == []


def test_what_two_routes_share_sleeps_with_the_second(idle: Idle, clock: Clock) -> None:
    clock.now = 500
    idle.use("see_b")
    idle.use("ocr_rec")
    clock.now = 700
    assert idle.naps(is_well) == [Nap("see_a", ("see_a", "read_a"))]
    clock.now = 1100
    assert Nap("see_b", ("see_b", "clip_image", "read_b", "clip_text")) in idle.naps(is_well)
    idle.use("see_a")
    assert idle.woken() == ["see_a"]
    assert idle.to_load() == set(ROUTES["see_a"])
    assert asleep(idle) == {*ROUTES["ocr_rec"], "see_b", "read_b"}


def test_what_is_not_well_does_not_sleep(idle: Idle, clock: Clock) -> None:
    clock.now = 600
    assert [nap.route for nap in idle.naps(lambda model: model != "ocr_det")] == ["see_a", "see_b"]
    assert idle.states().models["ocr_det"] == "ready"


def test_it_wakes_until_all_is_loaded(idle: Idle, clock: Clock) -> None:
    clock.now = 600
    idle.naps(is_well)
    idle.use("ocr_rec")
    clock.now = 602
    assert idle.states().models["ocr"] == "waking"
    assert idle.loaded("ocr") == 2
    assert idle.states().models["ocr"] == "ready"
    assert idle.to_load() == {"ocr_det", "ocr_rec"}
    assert idle.loaded("ocr") is None, "a model that was awake took no time to wake"


def test_one_that_wakes_for_too_long_is_told(idle: Idle, clock: Clock) -> None:
    clock.now = 600
    idle.naps(is_well)
    idle.use("ocr_rec")
    clock.now += SLOW_SECONDS
    assert idle.states().models["ocr"] == "loading"
    assert idle.naps(is_well) == [], "it is not put to sleep again before it was awake"


def test_one_that_cannot_be_loaded_says_why_until_it_can(idle: Idle, clock: Clock) -> None:
    clock.now = 600
    idle.naps(is_well)
    idle.use("ocr_rec")
    assert idle.load_failed("ocr_det", "no memory")
    idle.report(loading=(), failed={})
    assert (idle.states().models["ocr_det"], idle.states().reasons) == ("failed", {"ocr_det": "no memory"})
    assert "ocr_det" not in idle.to_load(), "when to try again is the caretaker's business"
    clock.now = 5000
    assert [nap for nap in idle.naps(is_well) if nap.route == "ocr_rec"] == [], "asleep it would look well"
    idle.loaded("ocr_det")
    assert idle.states().reasons == {}
    assert not idle.load_failed("never slept", "no memory")


def test_a_new_server_lets_sleep_what_slept(idle: Idle, clock: Clock) -> None:
    clock.now = 600
    idle.use("see_a")
    idle.use("see_b")
    idle.naps(is_well)
    clock.now = 1100
    order = [model for models in ROUTES.values() for model in models]
    awake = idle.begin(dict.fromkeys(order))
    assert set(awake) == set(order) - set(ROUTES["ocr_rec"])
    assert idle.states().models["see_a"] == "loading"
    clock.now = 1699
    assert idle.naps(is_well) == [], "the time without a server does not count"
    idle.use("ocr_rec")
    assert idle.to_load() == set(ROUTES["ocr_rec"])


def test_what_is_new_or_changed_in_a_sleeping_route_is_loaded_when_it_wakes(idle: Idle, clock: Clock) -> None:
    clock.now = 600
    idle.naps(is_well)
    idle.follow({**ROUTES, "ocr_rec": ("ocr_det2", *ROUTES["ocr_rec"])})
    assert idle.puts_off("ocr_det2")
    assert idle.puts_off("ocr")
    idle.use("ocr_rec")
    assert not idle.puts_off("ocr")
    assert idle.to_load() == {"ocr_det2", *ROUTES["ocr_rec"]}


def test_a_route_that_is_gone_is_forgotten_with_its_models(idle: Idle, clock: Clock) -> None:
    clock.now = 600
    idle.naps(is_well)
    for model in ROUTES["ocr_rec"]:
        idle.forget(model)
    idle.follow({route: models for route, models in ROUTES.items() if route != "ocr_rec"})
    assert idle.to_load() == set()
    idle.use("ocr_rec")
    assert idle.woken() == []
    idle.follow(ROUTES)
    assert idle.states().models["ocr"] == "ready", "one that comes anew is loaded by whoever sees its files"
