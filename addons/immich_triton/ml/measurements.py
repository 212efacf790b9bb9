"""What is measured: the Prometheus metrics of one loaded gateway.

Every label comes from a small fixed set, or from what the operator wrote (pipelines and models in the routes): nothing
of a request ever becomes a label, so that no client can fill the memory of Prometheus, or leave a trace in it.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final, Literal, get_args, override

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from immich_triton.core import versions
from immich_triton.core.observer import LOST, CatchUp, FaultKind, Observer, Reason, Refusal, RouteTaken
from immich_triton.core.timing import overhead
from immich_triton.ml.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from immich_triton.core.observer import Compared, RequestDone
    from immich_triton.ml.outages import Owed
    from immich_triton.triton.breaker import State
    from immich_triton.triton.pipelines import Pipeline

NAMESPACE: Final = "immich_gateway"
"""Before every name: Immich's own server exports metrics that begin with ``immich_`` too."""

OTHER: Final = "other"
"""What a label becomes whose value is none of the known ones."""

INPUTS: Final = (("clip", "image"), ("clip", "text"), ("ocr", "image"), ("facial-recognition", "image"))
"""What Immich asks for, as task and input."""

REFUSALS: Final[dict[Refusal, int]] = {
    "connections": 0,
    "draining": 503,
    "headers": 431,
    "no_length": 411,
    "no_room": 503,
    "no_token": 404,
    "too_large": 413,
    "too_slow": 408,
}
"""Reasons to answer unread, with the status that goes with them."""

ModelState = Literal["ready", "asleep", "loading", "failed"]
"""How a routed model is. Without a supervisor to ask, what is not ready has failed."""

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 240, 300)
OVERHEAD_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)


class Measurements(Observer):
    """Counts what it hears, in a registry of its own: a reloaded script brings a new one, with the same names."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._count_requests()
        self._count_faults()
        self._count_comparisons()
        self._show_state()
        self._begin_at_zero()
        build = self._gauge("build_info", "What runs; always 1.", "version", "mitmproxy", "tritonclient", "python")
        others = versions.of("mitmproxy"), versions.of("tritonclient"), platform.python_version()
        build.labels(versions.own(), *others).set(1)

    def _count_requests(self) -> None:
        labels = ("task", "input", "route", "outcome", "reason")
        text = "POST /predict requests that were decided: answered here, or released to the stock ML."
        self._requests = self._counter("requests", text, *labels)
        text = "Requests that were answered without being read."
        self._refused = self._counter("refused_requests", text, "reason", "status")
        text = "Answers of the stock ML that passed through."
        self._passed = self._counter("passed_through", text, "kind", "status")
        self._pings = self._counter("pings", "Answers to Immich's GET /ping.", "status")
        text = "Time from the last byte of a request to its answer."
        self._seconds = self._histogram("request_duration_seconds", text)
        text = "Part of that time spent in the gateway's queue or waiting for Triton to be well."
        self._waited = self._histogram("request_waiting_seconds", text)
        self._at_triton = self._histogram("request_triton_seconds", "Part of that time spent at Triton.")
        text = "Rest of that time: spent in the gateway itself."
        self._overhead = self._histogram("request_overhead_seconds", text, OVERHEAD_SECONDS)

    def _count_faults(self) -> None:
        self._breaker_opened = self._counter("breaker_opened", "How often a breaker opened.", "pipeline")
        self._faults = self._counter("triton_faults", "Calls to Triton that failed.", "pipeline", "kind")
        text = "Failed calls whose request is tried again."
        self._retries = self._counter("triton_retries", text, "pipeline", "kind")
        self._fallbacks = self._counter("fallbacks", "Tasks answered by the stock ML while Triton was away.", "task")
        self._upstream_errors = self._counter("upstream_errors", "Requests that the stock ML did not answer.", "status")
        text = "Times Immich was asked to run what is missing."
        self._catch_ups = self._counter("catch_ups", text, "task", "outcome")

    def _count_comparisons(self) -> None:
        self._compared = self._counter("shadow_comparisons", "Shadow requests by result.", "task", "result")
        self._found = self._counter("shadow_items", "Lines or faces in compared answers.", "task", "found_by")
        text = "Time the stock ML took for shadow requests."
        self._shadow_seconds = self._counter("shadow_upstream_seconds", text, "task")

    def _show_state(self) -> None:
        text = "POST /predict requests from their headers to their answer or the end of their client."
        self.in_flight = self._gauge("requests_in_flight", text)
        self._waiting = self._gauge("requests_waiting", "Requests that wait for a place at Triton.", "pipeline")
        text = "Calls that are at Triton, those that nobody waits for any more included."
        self._calls = self._gauge("triton_calls", text, "pipeline")
        self._bytes = self._gauge("held_bytes", "Bytes of /predict bodies held or expected.")
        self._bytes_limit = self._gauge("held_bytes_limit", "What may be held: immich_max_waiting_mib, in bytes.")
        text = "1 while the breaker of a pipeline is not closed: its requests wait for Triton to be well again; else 0."
        self._breaker = self._gauge("breaker_open", text, "pipeline", "models")
        text = "1 while the breaker of a pipeline is half-open: one request at a time tries whether it works; else 0."
        self._half_open = self._gauge("breaker_half_open", text, "pipeline", "models")
        self._triton_up = self._gauge("triton_up", "1 while Triton answers, else 0.")
        self._model_ready = self._gauge("model_ready", "1 while a routed model is ready in Triton, else 0.", "model")
        text = "1 for the state that a routed model is in, 0 for the others: ready, asleep, loading, failed."
        self._model_state = self._gauge("model_state", text, "model", "state")
        self._routed = self._gauge("routed_names", "Model names answered by Triton.", "task")
        text = "1 while photos may be without a result that Immich has not been asked to run again yet, else 0."
        self._owed = self._gauge("catch_up_owed", text, "task")
        text = "Unix time from which Immich is asked to run them; 0 while nothing is owed."
        self._due = self._gauge("catch_up_due_timestamp_seconds", text, "task")

    def _begin_at_zero(self) -> None:
        """Show what alerts wait for before it happens: ``increase()`` does not see a series that begins with 1."""
        for task, kind in INPUTS:
            for reason in LOST:
                self._requests.labels(task, kind, "triton", "server_error", reason)
        for refusal, status in REFUSALS.items():
            self._refused.labels(refusal, status)
        for status in (502, 504):
            self._upstream_errors.labels(status)
        for task in TASKS:
            self._fallbacks.labels(task)
            for outcome in get_args(CatchUp):
                self._catch_ups.labels(task, outcome)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        labels = ("task", "input")
        return Histogram(name, text, labels, namespace=NAMESPACE, registry=self.registry, buckets=buckets)

    @override
    def request_done(self, done: RequestDone) -> None:
        task, kind = task_of(done), "image" if done.has_image else "text"
        self._requests.labels(
            task,
            kind,
            _known(done.route, get_args(RouteTaken)),
            outcome_of(done),
            _known(done.reason, get_args(Reason)),
        ).inc()
        if done.route not in ("triton", "split"):
            return
        self._seconds.labels(task, kind).observe(done.seconds)
        self._waited.labels(task, kind).observe(done.timing.waited)
        self._at_triton.labels(task, kind).observe(done.timing.at_triton)
        if (own := overhead(done)) is not None:
            self._overhead.labels(task, kind).observe(own)

    @override
    def refused(self, reason: Refusal, status: int, *, photo: bool = False) -> None:
        self._refused.labels(_known(reason, REFUSALS), status).inc()

    @override
    def waiting(self, pipeline: str, count: int) -> None:
        self._waiting.labels(pipeline).set(count)

    @override
    def at_triton(self, pipeline: str, count: int) -> None:
        self._calls.labels(pipeline).set(count)

    @override
    def bytes_held(self, count: int) -> None:
        self._bytes.set(count)

    @override
    def breaker_changed(self, pipeline: str, *, is_closed: bool, reason: str) -> None:
        if not is_closed:
            self._breaker_opened.labels(pipeline).inc()

    @override
    def call_failed(self, pipeline: str, kind: FaultKind, *, again: bool) -> None:
        word = _known(kind, get_args(FaultKind))
        self._faults.labels(pipeline, word).inc()
        if again:
            self._retries.labels(pipeline, word).inc()

    @override
    def fell_back(self, task: str) -> None:
        self._fallbacks.labels(_known(task, TASKS)).inc()

    @override
    def upstream_failed(self, status: int) -> None:
        self._upstream_errors.labels(status).inc()

    @override
    def catch_up(self, task: str, outcome: CatchUp) -> None:
        self._catch_ups.labels(_known(task, TASKS), _known(outcome, get_args(CatchUp))).inc()

    @override
    def shadow_compared(self, compared: Compared, seconds: float) -> None:
        task = _known(compared.task, TASKS)
        self._compared.labels(task, "same" if compared.same else "different").inc()
        self._found.labels(task, "both").inc(compared.both)
        self._found.labels(task, "triton").inc(compared.only_ours)
        self._found.labels(task, "upstream").inc(compared.only_theirs)
        self._shadow_seconds.labels(task).inc(seconds)

    @override
    def shadow_failed(self, task: str) -> None:
        self._compared.labels(_known(task, TASKS), "failed").inc()

    def passed_through(self, kind: str, status: int) -> None:
        """Count an answer of the upstream to a ``/predict`` ("predict") or anything else ("pass")."""
        self._passed.labels(_known(kind, ("predict", "pass")), f"{status // 100}xx").inc()

    def pinged(self, status: int) -> None:
        """Count an answer to Immich's ping."""
        self._pings.labels(status).inc()

    def look_at_triton(
        self, *, up: bool, models: dict[str, ModelState], breakers: Iterable[tuple[Pipeline, State]]
    ) -> None:
        """Take the state of now; what is not named any more disappears. *breakers* tells how each of them stands."""
        self._triton_up.set(up)
        self._model_ready.clear()
        self._model_state.clear()
        for model, now in models.items():
            self._model_ready.labels(model).set(now == "ready")
            for state in get_args(ModelState):
                self._model_state.labels(model, state).set(state == now)
        self._breaker.clear()
        self._half_open.clear()
        for pipeline, stands in breakers:
            labels = (pipeline.name, " ".join(pipeline.models))
            self._breaker.labels(*labels).set(stands != "closed")
            self._half_open.labels(*labels).set(stands == "half_open")
            # As in `_begin_at_zero`, for what only the routes name.
            self._breaker_opened.labels(pipeline.name)
            for kind in get_args(FaultKind):
                self._faults.labels(pipeline.name, kind)
                self._retries.labels(pipeline.name, kind)

    def look_at_settings(self, names: dict[str, int], bytes_limit: int) -> None:
        """Take how many model names of each task are answered by Triton, and how many bytes may be held."""
        self._bytes_limit.set(bytes_limit)
        for task in TASKS:
            self._routed.labels(task).set(names.get(task, 0))

    def look_at_outages(self, owed: Iterable[Owed]) -> None:
        """Take what Immich is owed now."""
        due = {one.task: one.due for one in owed}
        for task in TASKS:
            self._owed.labels(task).set(task in due)
            self._due.labels(task).set(due.get(task, 0))


def task_of(done: RequestDone) -> str:
    """Return the task of a request, "several" (Immich never asks so), or "other" when none is ours."""
    return _known(done.tasks[0], TASKS) if len(done.tasks) == 1 else "several" if done.tasks else OTHER


def outcome_of(done: RequestDone) -> str:
    """Return how a request ended, in a word."""
    if done.reason in ("released", "client_gone"):
        return done.reason
    return "ok" if done.status < 400 else "client_error" if done.status < 500 else "server_error"


def _known(word: str, words: Iterable[str]) -> str:
    return word if word in words else OTHER
