"""What is asked of Triton, and what may go wrong."""

from __future__ import annotations

from typing import get_args

import pytest

from immich_triton.core.observer import FaultKind
from immich_triton.triton.inference import (
    BadInput,
    Call,
    Poison,
    Refused,
    ServerFault,
    TritonError,
    Unavailable,
    WrongWeights,
)
from immich_triton.triton.pipelines import Pipeline


def test_only_poison_is_a_kind_of_another_error() -> None:
    errors = (BadInput, Unavailable, Refused, WrongWeights, ServerFault, Poison)
    assert all(issubclass(error, TritonError) for error in errors)
    related = [(one, other) for one in errors for other in errors if one is not other and issubclass(one, other)]
    assert related == [(Poison, ServerFault)]


@pytest.mark.parametrize("kind", get_args(FaultKind))
def test_only_an_answer_may_be_about_this_very_request(kind: FaultKind) -> None:
    assert ServerFault("it failed", kind=kind).answered == (kind in ("status", "garbage"))


def test_a_fault_says_what_is_known() -> None:
    fault = Poison("it died", kind="process", model="ocr_det", renewed=True)
    assert (str(fault), fault.kind, fault.model, fault.renewed) == ("it died", "process", "ocr_det", True)
    unknown = ServerFault("no answer")
    assert (unknown.kind, unknown.model, unknown.renewed) == ("garbage", "", False)


def test_no_image_and_no_query_is_shown() -> None:
    call = Call(Pipeline("clip_text", ("textual",), ()), "TEXT", b"my diary", ("EMBEDDING",))
    assert "diary" not in repr(call)
    assert call.parameters == {}
