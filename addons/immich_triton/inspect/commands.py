"""Addon: commands for people who look at flows, in mitmweb's command bar and in mitmproxy.

mitmproxy's commands return at once, and the event loop must not wait for a network: what takes time goes on in the
background and reports by the flow's comment, its answer's content view and an alert.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mitmproxy.types
import orjson
from mitmproxy import command, ctx, flow
from mitmproxy.exceptions import CommandError
from mitmproxy.hooks import UpdateHook
from mitmproxy.http import HTTPFlow
from mitmproxy.log import ALERT
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core import flow_state
from immich_triton.core.errors import ProtocolError
from immich_triton.core.json_text import dump
from immich_triton.core.observer import Timing
from immich_triton.inspect.comparing import Comparison, NotComparableError, compare
from immich_triton.inspect.contentview import is_prediction
from immich_triton.ml import dispatch, upstream
from immich_triton.ml.ledger import LedgerError
from immich_triton.ml.protocol import Form, build_form, parse_entries, parse_form
from immich_triton.proxy.targets import address_of
from immich_triton.triton.inference import TritonError
from immich_triton.triton.picture import picture_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator
    from typing import Any

    from immich_triton.ml.service import Service

logger = logging.getLogger(__name__)

READY_WITHIN = 5.0
"""Seconds that Triton is given to say which models are ready."""

SEPARATOR = " | "
"""Between the comment of a flow and the summary of its comparison."""

AWAY = "Triton is away; the stock ML answered"
"""By ``immich_fallback_tasks``: a comparison would be one of the stock ML with itself."""

FAILURES = (upstream.UpstreamAnswer, ProtocolError, TritonError, LedgerError, NotComparableError)


class Commands:
    """``immich.routes``, ``immich.compare`` and ``immich.image.save``."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._unready: dict[str, str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def running(self) -> None:
        """Look once, so that the first ``immich.routes`` has something to say."""
        self._spawn(self._look(), "look at the routes")

    def done(self) -> None:
        """Stop what runs."""
        for task in list(self._tasks):
            task.cancel()

    @command.command("immich.routes")  # type: ignore[untyped-decorator]
    def routes(self) -> Sequence[str]:
        """Return which names are answered by which models, and whether Triton had them ready when last asked.

        Asks Triton again, and reports in the event log.
        """
        self._spawn(self._look(aloud=True), "look at the routes")
        return self._describe()

    @command.command("immich.compare")  # type: ignore[untyped-decorator]
    def compare(self, flows: Sequence[flow.Flow]) -> None:
        """Send recorded /predict requests to Triton and to the upstream once more, and show how the answers differ.

        In short in the comment of the flow and in the event log, in full below its answer.
        """
        self._spawn(self._compare_all(list(predictions(flows))), "compare flows")

    @command.command("immich.image.save")  # type: ignore[untyped-decorator]
    def save_images(self, flows: Sequence[flow.Flow], directory: mitmproxy.types.Path) -> None:
        """Save the images of /predict requests, as they came, in a directory."""
        folder = Path(directory).expanduser()
        count = malformed = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for one in predictions(flows):
                try:
                    image = form_of(one).image
                except ProtocolError:
                    malformed += 1
                    continue
                if image is not None:
                    (folder / f"{one.id}{picture_of(image).extension}").write_bytes(image)
                    count += 1
        except OSError as error:
            raise CommandError(f"cannot write to {folder}: {error}") from error
        skipped = f"; malformed requests skipped: {malformed}" if malformed else ""
        logger.log(ALERT, "%d images saved in %s%s", count, folder, skipped)

    def _describe(self) -> list[str]:
        try:
            table = self._service.table
        except ProtocolError as error:
            return [str(error)]
        lines = []
        for line, route in zip(table.describe(), table.routes, strict=True):
            models = {model for pipeline in route.pipelines for model in pipeline.all_models}
            reasons = [f"{model}: {why}" for model, why in (self._unready or {}).items() if model in models]
            state = "; ".join(reasons) or "ready"
            lines.append(f"{line}: {state if self._unready is not None else 'not asked yet'}")
        return lines or [f"nothing is routed: there is no route in {self._service.settings.models}"]

    async def _look(self, *, aloud: bool = False) -> None:
        try:
            self._unready = await self._service.why_not_ready(within=READY_WITHIN)
        except ProtocolError as error:
            logger.log(ALERT, "%s", error)
            return
        if aloud:
            for line in self._describe():
                logger.log(ALERT, "%s", line)

    async def _compare_all(self, flows: Sequence[HTTPFlow]) -> None:
        for one in flows:
            try:
                summary, report = await self._compare(one)
            except FAILURES as error:
                summary = report = f"cannot compare: {error}"
            one.comment = f"{one.comment.partition(SEPARATOR)[0]}{SEPARATOR}{summary}"
            flow_state.COMPARISON.set(one, report)
            ctx.master.addons.trigger(UpdateHook([one]))
            logger.log(ALERT, "%s", summary)

    async def _compare(self, one: HTTPFlow) -> tuple[str, str]:
        """Return a line without texts, and the whole comparison as the content view shows it."""
        form = form_of(one)
        entries = parse_entries(form.entries)
        parts, _ = dispatch.split(self._service, entries)
        if not parts:
            return "nothing in this request is routed to Triton", "comparison: nothing here is routed to Triton"
        base = address_of(one.request)
        tasks = [part.route.task for part in parts]
        content_type, body = build_form({task: entries[task] for task in tasks}, form)
        within = self._service.settings.deadline
        # One after the other: on one machine they would compete for the processor and both look slow.
        began = time.monotonic()
        question = dispatch.Question(form, base, began + within, Timing())
        ours = await dispatch.answer(self._service, parts, {}, question)
        if question.fell_back:
            return AWAY, f"comparison: {AWAY} ({', '.join(tasks)}), so that there is nothing to compare"
        half = time.monotonic()
        theirs = await upstream.predict(base, content_type, body, within=within)
        times = f"Triton {1000 * (half - began):.0f} ms, upstream {1000 * (time.monotonic() - half):.0f} ms"
        sent = orjson.loads(dump(ours))
        comparisons = [await asyncio.to_thread(compare, task, sent, theirs) for task in tasks]
        summary = ", ".join(comparison.summary for comparison in comparisons)
        return f"{summary}, {times}", "\n".join(report_lines(comparisons, times, base))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task: asyncio.Task[None] = create_task(work, name=name, keep_ref=True)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def predictions(flows: Iterable[flow.Flow]) -> Iterator[HTTPFlow]:
    """Yield the ``/predict`` flows whose body is there. Raises CommandError when there is none."""
    found = False
    for one in flows:
        if isinstance(one, HTTPFlow) and is_prediction(one.request) and one.request.raw_content:
            found = True
            yield one
    if not found:
        raise CommandError("none of these flows is a POST /predict")


def form_of(one: HTTPFlow) -> Form:
    """Return the fields of a recorded request. Raises `ProtocolError`."""
    return parse_form(one.request.headers.get("content-type", ""), one.request.raw_content or b"")


def report_lines(comparisons: Iterable[Comparison], times: str, upstream_url: str) -> Iterator[str]:
    """Yield a comparison for the content view."""
    yield f"comparison with {upstream_url}: {times}"
    for comparison in comparisons:
        yield f"{comparison.summary}{' (the same)' if comparison.same else ''}"
        for detail in comparison.details:
            yield "\n".join(f"  {line}" for line in detail.splitlines())
    yield "= in both, ~ differs (Triton above, upstream below)"
    yield "+ Triton only, - upstream only"
