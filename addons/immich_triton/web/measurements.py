"""What is measured: the Prometheus metrics of one loaded site.

Every label comes from a small fixed set: nothing of a request ever becomes a label, so that no client can fill the
memory of Prometheus, or leave a trace in it.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from immich_triton.core import versions
from immich_triton.web.account import Kind, OrderOutcome, RunResult
from immich_triton.web.failopen import Part, Reason
from immich_triton.web.reprocessing.tasks import TASKS

if TYPE_CHECKING:
    from immich_triton.web.account import Account

NAMESPACE: Final = "immich_site"
"""Before every name: Immich's own server exports metrics that begin with ``immich_`` too."""

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10, 30, 120)

STATUSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")


class Measurements:
    """In a registry of its own: a reloaded script brings a new one, with the same names."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._count_searches()
        self._count_orders()
        self._count_the_rest()
        self._begin_at_zero()
        build = self._gauge("build_info", "What runs; always 1.", "version", "mitmproxy", "python")
        build.labels(versions.own(), versions.of("mitmproxy"), platform.python_version()).set(1)

    def _count_searches(self) -> None:
        self._searches = self._counter("searches", "Searches, and what became of them.", "kind", "outcome")
        text = "Searches whose text was scored, by where the text came from."
        self._texts = self._counter("texts", text, "source")
        text = "Time from the last byte of a search that is answered here to its answer."
        self._seconds = self._histogram("search_duration_seconds", text)
        text = "Part of that time in which Immich was asked something."
        self._at_immich = self._histogram("search_immich_seconds", text)
        text = "Rest of that time: the site itself, and the database."
        self._own = self._histogram("search_own_seconds", text)

    def _count_orders(self) -> None:
        text = "Orders to process photos again."
        self._orders = self._counter("reprocess_orders", text, "task", "outcome")
        text = "Photos in the orders that were queued."
        self._photos = self._counter("reprocess_photos", text, "task")
        text = "Photos whose run has ended, and how that is known; of OCR only once somebody asks."
        self._results = self._counter("reprocess_results", text, "task", "result")

    def _count_the_rest(self) -> None:
        text = "Requests that were left to stock Immich because of a fault here."
        self._failed_open = self._counter("failed_open", text, "part", "reason")
        text = "Pages that were looked at: with the script of the menus in it now, or as they were."
        self._pages = self._counter("pages", text, "outcome")
        self._answers = self._counter("answers", "Answers, Immich's and ours.", "status")
        self._unanswered = self._counter("unanswered", "Requests without an answer: Immich or the client was gone.")
        self.in_flight = self._gauge("requests_in_flight", "Requests that go on; WebSockets are none.")
        self._immich_up = self._gauge("immich_up", "1 while Immich answers, else 0.")
        text = (
            "1 while the database (web_database_url) is asked, 0 while it is left alone after a fault; -1 without one."
        )
        self._database_up = self._gauge("database_up", text)

    def _begin_at_zero(self) -> None:
        """Show what alerts wait for before it happens: ``increase()`` does not see a series that begins with 1."""
        for part in get_args(Part):
            for reason in get_args(Reason):
                self._failed_open.labels(part, reason)
        for task in TASKS:
            for outcome in get_args(OrderOutcome):
                self._orders.labels(task, outcome)
            for result in get_args(RunResult):
                self._results.labels(task, result)
        for status in STATUSES:
            self._answers.labels(status)
        for kind in get_args(Kind):
            self._searches.labels(kind, "fault")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("kind",), namespace=NAMESPACE, registry=self.registry, buckets=SECONDS)

    def searched(self, account: Account, *, answered: bool, seconds: float) -> None:
        """Count a search; its times only where it was *answered* here, after *seconds*."""
        self._searches.labels(account.kind, account.outcome).inc()
        if account.text_from is not None:
            self._texts.labels(account.text_from).inc()
        if answered:
            at_immich = min(account.at_immich.seconds, seconds)
            self._seconds.labels(account.kind).observe(seconds)
            self._at_immich.labels(account.kind).observe(at_immich)
            self._own.labels(account.kind).observe(seconds - at_immich)

    def ordered(self, task: str, outcome: OrderOutcome, photos: int = 0) -> None:
        """Count an order, and its *photos* where it was queued."""
        self._orders.labels(task, outcome).inc()
        if photos:
            self._photos.labels(task).inc(photos)

    def run_ended(self, task: str, result: RunResult) -> None:
        """Count a photo that was processed again, or was to be."""
        self._results.labels(task, result).inc()

    def failed_open(self, part: Part, reason: Reason) -> None:
        """Count what was left to stock Immich."""
        self._failed_open.labels(part, reason).inc()

    def looked_at_page(self, *, changed: bool) -> None:
        """Count a page that was looked at."""
        self._pages.labels("script_added" if changed else "as_it_was").inc()

    def answered(self, status: int) -> None:
        """Count an answer."""
        self._answers.labels(f"{min(max(status // 100, 1), 5)}xx").inc()

    def not_answered(self) -> None:
        """Count a request that got no answer."""
        self._unanswered.inc()

    def look(self, *, immich_up: bool, database_up: bool | None) -> None:
        """Take how Immich and the database are; None for one that nobody set."""
        self._immich_up.set(immich_up)
        self._database_up.set(-1 if database_up is None else database_up)
