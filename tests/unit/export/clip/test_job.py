"""What is asked of the export environment goes there as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from immich_triton.export.clip.job import NOT_EQUAL, Job


@pytest.mark.parametrize(
    "job", [Job("RN50", "/x", "fp32", 1), Job("ViT-H-14", "/y", "fp16", 2**31 - 1, "/w.pt", 7, external_data=True)]
)
def test_a_job_arrives_as_it_was_sent(job: Job) -> None:
    assert Job(**json.loads(json.dumps(asdict(job)))) == job


def test_models_that_differ_are_told_from_other_failures() -> None:
    assert NOT_EQUAL not in {0, 1, 2}
