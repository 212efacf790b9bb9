"""Trials of ``scripts/lab/chaos.py``, where the models that they break are not there."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import cast

import pytest

from trials.faults import TRIALS
from trials.world import World


@pytest.mark.parametrize("name", ["freeze-one", "long-screenshots"])
def test_without_ocr_a_trial_of_it_fails_and_says_why(name: str) -> None:
    world = cast(World, SimpleNamespace(site=SimpleNamespace(triton_pid=os.getpid()), kinds={}))
    (failure,) = TRIALS[name].run(world).failures
    assert "immich-triton export ocr" in failure


def test_trials_are_named_in_one_word() -> None:
    assert [name for name in TRIALS if " " in name] == []
