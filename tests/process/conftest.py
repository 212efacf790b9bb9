"""What most gateways of these tests have on either side. A file that shares them among its tests has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from recorder import Recorder, recording_upstream
from stand_in_triton import StandInTriton, stand_in_triton


@pytest.fixture
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder
