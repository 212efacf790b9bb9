"""Addon: asks the upstream too, for a share of what Triton answered, and keeps count of how the answers differ.

In the background: an answer is on its way before its comparison begins. At most one comparison runs at a time, and what
comes meanwhile is skipped and counted, so that a slow upstream costs neither memory nor a queue. CLIP is never sent:
its vectors belong to another space, and no other model is to see such a request.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson
from mitmproxy import command
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core import flow_state
from immich_triton.core.errors import ProtocolError
from immich_triton.core.observer import Compared
from immich_triton.inspect.comparing import Comparison, NotComparableError, compare
from immich_triton.ml import dispatch, upstream
from immich_triton.ml.protocol import build_form, parse_entries, parse_form
from immich_triton.proxy.flow_kind import kind_of, may_go_upstream
from immich_triton.proxy.targets import address_of

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.ml.service import Service

logger = logging.getLogger(__name__)

TASKS: Final = ("ocr", "facial-recognition")

FAILURES: Final = (upstream.UpstreamAnswer, ProtocolError, NotComparableError, orjson.JSONDecodeError)


@dataclass
class Totals:
    """What shadow mode saw of one task; sums, to be divided by ``compared``. Upstream time in seconds."""

    compared: int = 0
    same: int = 0
    failed: int = 0
    likeness: float = 0.0
    overlap: float = 0.0
    seconds: float = 0.0
    items: dict[str, int] = field(default_factory=lambda: {"both": 0, "triton": 0, "upstream": 0})

    def add(self, comparison: Comparison, seconds: float) -> None:
        """Count one comparison."""
        self.compared += 1
        self.same += comparison.same
        self.likeness += comparison.likeness
        self.overlap += comparison.overlap
        self.seconds += seconds
        self.items["both"] += len(comparison.pairs)
        self.items["triton"] += len(comparison.only_ours)
        self.items["upstream"] += len(comparison.only_theirs)

    def describe(self) -> str:
        """Return one line for people."""
        if not self.compared:
            return f"nothing compared, {self.failed} failed"
        count = self.compared
        return (
            f"{count} compared, {self.same} the same, {self.failed} failed; "
            f"likeness {self.likeness / count:.3f}, IoU {self.overlap / count:.2f}; "
            f"found by both {self.items['both']}, by Triton alone {self.items['triton']}, "
            f"by the upstream alone {self.items['upstream']}; upstream {1000 * self.seconds / count:.0f} ms"
        )


class Shadow:
    """Compares in the background; last in the list, because the answer must be final."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._share = 0.0
        self._running: asyncio.Task[None] | None = None
        self.totals = {task: Totals() for task in TASKS}
        self.skipped = 0

    def configure(self, updated: AbstractSet[str]) -> None:
        """Take the share that the settings say."""
        if "immich_shadow" in updated:
            self._share = self._service.settings.shadow

    def response(self, flow: HTTPFlow) -> None:
        """Start a comparison for the chosen share of the answers that are Triton's."""
        if not self._share or not flow.live or kind_of(flow, self._service.id) != "predict" or may_go_upstream(flow):
            return
        if flow.response is None or flow.response.status_code != 200 or flow_state.FELL_BACK.get(flow):
            return
        if random.random() >= self._share:  # noqa: S311 - no secret
            return
        if self._running is not None and not self._running.done():
            self.skipped += 1
            return
        self._running = create_task(self._compare(flow), name="shadow", keep_ref=True)

    def done(self) -> None:
        """Give up what runs."""
        if self._running is not None:
            self._running.cancel()

    @command.command("immich.shadow")  # type: ignore[untyped-decorator]
    def report(self) -> Sequence[str]:
        """Return what shadow mode saw so far, a line for each task."""
        lines = [f"{task}: {totals.describe()}" for task, totals in self.totals.items()]
        return [*lines, f"skipped while another comparison ran: {self.skipped}"]

    async def _compare(self, flow: HTTPFlow) -> None:
        request, response = flow.request, flow.response
        if request.raw_content is None or response is None or response.raw_content is None:
            return
        form = parse_form(request.headers.get("content-type", ""), request.raw_content)
        asked = parse_entries(form.entries)
        ours, _ = dispatch.split(self._service, {task: asked[task] for task in TASKS if task in asked})
        tasks = [part.route.task for part in ours]
        if not tasks:
            return
        content_type, body = build_form({task: asked[task] for task in tasks}, form)
        began = time.monotonic()
        try:
            base = address_of(request)
            theirs = await upstream.predict(base, content_type, body, within=self._service.settings.deadline)
            seconds = time.monotonic() - began
            answer = orjson.loads(response.raw_content)
            for task in tasks:
                # In a thread: a page of text takes long enough to be felt by whoever waits for an answer.
                self._count(await asyncio.to_thread(compare, task, answer, theirs), seconds)
        except FAILURES as error:
            for task in tasks:
                self.totals[task].failed += 1
                self._service.observers.shadow_failed(task)
            logger.info("shadow: no comparison: %s", error)

    def _count(self, comparison: Comparison, seconds: float) -> None:
        self.totals[comparison.task].add(comparison, seconds)
        compared = Compared(
            comparison.task,
            same=comparison.same,
            both=len(comparison.pairs),
            only_ours=len(comparison.only_ours),
            only_theirs=len(comparison.only_theirs),
        )
        self._service.observers.shadow_compared(compared, seconds)
        logger.info("shadow: %s, upstream %.0f ms", comparison.summary, 1000 * seconds)
