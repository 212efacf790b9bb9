"""What is measured: labels from fixed sets, and what alerts wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_triton.core.model_states import State
from immich_triton.core.observer import CatchUp, FaultKind, Reason, Refusal, RequestDone, RouteTaken
from immich_triton.ml.measurements import REFUSALS, Measurements
from immich_triton.ml.metrics import state_of
from immich_triton.ml.outages import Outages

PREFIX = "immich_gateway"


@given(
    tasks=st.lists(st.text(), max_size=3),
    words=st.tuples(st.text(), st.text(), st.text()),
    status=st.integers(200, 599),
    image=st.booleans(),
)
def test_labels_come_from_fixed_sets(tasks: list[str], words: tuple[Any, Any, Any], status: int, image: bool) -> None:
    measurements = Measurements()
    route, reason, word = words
    measurements.request_done(RequestDone(tuple(tasks), route, image, status, reason, 1.0))
    measurements.refused(word, status)
    measurements.call_failed("ocr", word, again=True)
    measurements.fell_back(word)
    measurements.catch_up(word, reason)
    measurements.shadow_failed(word)
    fixed = {*get_args(Reason), *get_args(RouteTaken), *get_args(Refusal), *get_args(FaultKind), *get_args(CatchUp)}
    fixed |= {"clip", "ocr", "facial-recognition", "several", "other", "image", "text"}
    fixed |= {"client_error", "server_error", "failed", str(status), "502", "504", *map(str, REFUSALS.values())}
    for family in measurements.registry.collect():
        for sample in family.samples:
            values = {value for key, value in sample.labels.items() if key != "le"}
            assert family.name.endswith("build_info") or values <= fixed


def test_what_is_owed_is_shown_with_the_time_it_is_due(tmp_path: Path) -> None:
    measurements, outages = Measurements(), Outages(tmp_path)

    def shown(name: str) -> dict[str, float]:
        (family,) = (one for one in measurements.registry.collect() if one.name == f"{PREFIX}_{name}")
        return {sample.labels["task"]: sample.value for sample in family.samples}

    outages.mark(("ocr",), now=5.0)
    measurements.look_at_outages(outages.owed())
    assert shown("catch_up_owed") == {"clip": 0, "facial-recognition": 0, "ocr": 1}
    assert shown("catch_up_due_timestamp_seconds") == {"clip": 0, "facial-recognition": 0, "ocr": 5.0}
    outages.settle("ocr", 5.0)
    measurements.look_at_outages(outages.owed())
    assert set(shown("catch_up_owed").values()) == set(shown("catch_up_due_timestamp_seconds").values()) == {0}


def test_what_alerts_wait_for_begins_at_zero() -> None:
    samples = [sample for family in Measurements().registry.collect() for sample in family.samples]
    lost = {
        (sample.labels["task"], sample.labels["input"], sample.labels["reason"])
        for sample in samples
        if sample.name == f"{PREFIX}_requests_total" and sample.labels["outcome"] == "server_error"
    }
    assert ("clip", "text", "unavailable") in lost
    assert ("facial-recognition", "image", "internal") in lost
    for name in ("refused_requests", "upstream_errors", "fallbacks", "catch_ups"):
        values = [sample.value for sample in samples if sample.name == f"{PREFIX}_{name}_total"]
        assert values
        assert set(values) == {0}
    assert set(REFUSALS) == set(get_args(Refusal))


@pytest.mark.parametrize(
    ("said", "ready", "state"),
    [
        (None, True, "ready"),
        ("asleep", True, "ready"),
        (None, False, "failed"),
        ("ready", False, "failed"),
        ("asleep", False, "asleep"),
        ("waking", False, "loading"),
        ("loading", False, "loading"),
        ("failed", False, "failed"),
    ],
)
def test_a_model_is_in_one_state(said: State | None, ready: bool, state: str) -> None:
    measurements = Measurements()
    measurements.look_at_triton(up=True, models={"ocr": state_of(said, ready=ready)}, breakers=[])
    (family,) = [one for one in measurements.registry.collect() if one.name.endswith("model_state")]
    assert [one.labels["state"] for one in family.samples if one.value] == [state]
    assert len(family.samples) == 4
