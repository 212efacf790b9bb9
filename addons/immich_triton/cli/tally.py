"""How many photos the gateway was asked about and how many failed, by its own count.

Immich's API tells how many jobs are left, and forgets each that ended, well or not. So what became of the photos is
known to the gateway alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import requests
from prometheus_client.parser import text_string_to_metric_families

from immich_triton.core import bounded_http
from immich_triton.ml.measurements import NAMESPACE

_NAME: Final = f"{NAMESPACE}_requests_total"
_BEGAN: Final = "process_start_time_seconds"
_SEVERAL: Final = "several"
"""Tasks that were asked in one request; whether ours was among them, nobody knows."""


@dataclass(frozen=True)
class Counts:
    """Requests with a photo: *answered*, and *failed*, which leave it without a result."""

    answered: int = 0
    failed: int = 0

    @property
    def asked(self) -> int:
        """All that were decided."""
        return self.answered + self.failed


class Tally:
    """The count of *task* (Immich's name) by the gateway whose metrics are at *url*, from now on.

    ``why`` it was not known at the last look, if it was not.
    """

    def __init__(self, url: str, task: str) -> None:
        self._url, self._task = url.rstrip("/").removesuffix("/metrics") + "/metrics", task
        self.why = ""
        self._final = False
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._first = self._read()
        self._most = self._first[1].asked if self._first else 0

    def give_up(self, why: str) -> None:
        """Say from now on that nothing is known, and *why*."""
        self.why, self._final = why, True

    def counts(self) -> Counts | None:
        """Return what was counted; None when that is not known. A look that fails does not harm the next one."""
        if self._final:
            return None
        now = self._read()
        if now is None or self._first is None:
            self.why = f"the gateway's metrics are not to be had at {self._url} (see --metrics)"
            return None
        (began, first), (begun, last) = self._first, now
        if begun != began or last.asked < self._most:
            self.give_up("the gateway was started again meanwhile, and counts from zero")
            return None
        self.why, self._most = "", last.asked
        return Counts(last.answered - first.answered, last.failed - first.failed)

    def _read(self) -> tuple[float, Counts] | None:
        """Return when the gateway began, and what it counted since."""
        try:
            reply = bounded_http.ask("GET", self._url)
            families = list(text_string_to_metric_families(reply.body.decode())) if reply.ok else []
        except (requests.RequestException, ValueError):
            return None
        samples = [sample for family in families for sample in family.samples]
        if all(sample.name != _NAME for sample in samples):
            return None
        ours = [
            (sample.labels["outcome"], int(sample.value))
            for sample in samples
            if sample.name == _NAME
            and sample.labels["input"] == "image"
            and sample.labels["task"] in (self._task, _SEVERAL)
        ]
        answered = sum(count for outcome, count in ours if outcome == "ok")
        failed = sum(count for outcome, count in ours if outcome not in ("ok", "released"))
        began = next((sample.value for sample in samples if sample.name == _BEGAN), 0.0)
        return began, Counts(answered, failed)
