"""What a diagnosis says of photos that are owed a result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from immich_triton.cli.findings import Finding, ok, warning
from immich_triton.immich.api import QUEUES
from immich_triton.immich.forced_runs import NOT_FOUND_BY_MISSING
from immich_triton.ml.outages import Outages, by_hand, when_asked


def findings(state_dir: Path) -> Iterator[Finding]:
    """Say what the gateway with that state directory has not caught up on yet, and when Immich is asked."""
    outages = Outages(state_dir)
    owed = outages.owed()
    for one in owed:
        fix = by_hand([one.task])
        if one.due > time.time():
            fix = f"at once: {fix}; the gateway's log says why they failed"
        else:
            fix = f"if that takes long: {fix}"
        yield warning(f"{QUEUES[one.task].title}: {when_asked(one)}", fix)
        if one.failed and one.task in NOT_FOUND_BY_MISSING:
            yield Finding("note", NOT_FOUND_BY_MISSING[one.task])
    if not owed and outages.path.exists():
        yield ok("no photo waits for a catch-up")
