"""Addon: metrics for Prometheus, and health for whoever runs the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

from mitmproxy.exceptions import OptionsError

from immich_triton.core import flow_state
from immich_triton.core.errors import ProtocolError
from immich_triton.core.flow_state import ByClient
from immich_triton.ml.measurements import Measurements
from immich_triton.ml.outages import Outages
from immich_triton.proxy.flow_kind import kind_of, may_go_upstream
from immich_triton.proxy.metrics_page import MetricsPage

if TYPE_CHECKING:
    from mitmproxy.connection import Client
    from mitmproxy.http import HTTPFlow

    from immich_triton.core.model_states import State
    from immich_triton.ml.measurements import ModelState
    from immich_triton.ml.service import Service

REMEDY: Final = (
    "Choose another address with immich_metrics_listen (immich-triton run --metrics-port N); immich_metrics_listen= "
    "goes without metrics"
)

WITHIN: Final = 0.8
"""Seconds Triton has to answer; Prometheus gives up after 10, Kubernetes' probes after 1."""


def state_of(said: State | None, *, ready: bool) -> ModelState:
    """Return a model's state for the metrics, from what the supervisor *said*, if any, and whether Triton has it."""
    if ready:
        return "ready"
    return "asleep" if said == "asleep" else "loading" if said in ("waking", "loading") else "failed"


class Metrics:
    """After the addons that give flows their kind and answer them, so that it sees what became of them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._measurements = Measurements()
        service.observers.subscribe(self._measurements)
        self._page = MetricsPage(
            self._measurements.registry, collect=self._look, why_not_ready=self._why_not_ready, remedy=REMEDY
        )
        self._in_flight: ByClient[set[str]] = ByClient(flow_state.IN_FLIGHT, lambda _client: set())

    def configure(self, updated: AbstractSet[str]) -> None:
        """Listen where the option says. Raises OptionsError when that is not possible."""
        if "immich_metrics_listen" not in updated:
            return
        try:
            self._page.move(self._service.settings.metrics_listen)
        except ValueError as error:
            raise OptionsError(f"immich-triton: {error}") from error

    def running(self) -> None:
        """Begin to answer: now there is an event loop."""
        self._page.running()

    def done(self) -> None:
        """Give the address back."""
        self._page.close()

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Count a request as in flight."""
        if kind_of(flow, self._service.id) == "predict" and not flow.error and flow.live:
            self._in_flight.of(flow.client_conn).add(flow.id)
            self._show_in_flight()

    def response(self, flow: HTTPFlow) -> None:
        """Count an answer."""
        self._end(flow)
        kind = kind_of(flow, self._service.id)
        if kind is None or flow.response is None or not flow.live:
            return
        if kind == "ping":
            self._measurements.pinged(flow.response.status_code)
        elif may_go_upstream(flow):
            self._measurements.passed_through(kind, flow.response.status_code)

    def error(self, flow: HTTPFlow) -> None:
        """Count a request that got no answer as ended."""
        self._end(flow)

    def client_disconnected(self, client: Client) -> None:
        """Count whatever a client that is gone had asked as ended."""
        if self._in_flight.pop(client):
            self._show_in_flight()

    def _end(self, flow: HTTPFlow) -> None:
        flows = self._in_flight.get(flow.client_conn)
        if flows and flow.id in flows:
            flows.discard(flow.id)
            if not flows:
                self._in_flight.pop(flow.client_conn)
            self._show_in_flight()

    def _show_in_flight(self) -> None:
        self._measurements.in_flight.set(sum(map(len, self._in_flight)))

    async def _why_not_ready(self) -> dict[str, str]:
        """Tell whether every route can be answered, by the same question as Immich's ping."""
        try:
            unready = await self._service.why_not_ready(within=WITHIN)
        except ProtocolError as error:
            unready = {"gateway": str(error.detail)}
        return {"gateway": "stopping", **unready} if self._service.draining else unready

    async def _look(self) -> None:
        """Ask Triton how it is, at every scrape: a state that is only heard of after a fault would be stale."""
        try:
            table, triton, settings = self._service.table, self._service.triton, self._service.settings
        except ProtocolError:
            return
        self._measurements.look_at_outages(Outages(settings.state_dir).owed())
        pipelines = {pipeline.all_models: pipeline for pipeline in table.pipelines()}
        models = list(dict.fromkeys(model for pipeline in pipelines.values() for model in pipeline.all_models))
        states = await self._service.supervisor.states()
        up, unready = await asyncio.gather(triton.is_live(within=WITHIN), triton.not_loaded(models, within=WITHIN))
        self._measurements.look_at_triton(
            up=up,
            models={model: state_of(states.models.get(model), ready=model not in unready) for model in models},
            breakers=[(pipeline, triton.breaker(pipeline).state) for pipeline in pipelines.values()],
        )
        names: dict[str, int] = {}
        for route in table.routes:
            names[route.task] = names.get(route.task, 0) + len(route.names)
        self._measurements.look_at_settings(names, settings.max_waiting)
