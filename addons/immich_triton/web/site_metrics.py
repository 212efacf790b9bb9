"""Addon: metrics for Prometheus, and health for whoever runs the site."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

from mitmproxy.exceptions import OptionsError

from immich_triton.proxy.metrics_page import MetricsPage

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.web.service import Service

REMEDY: Final = (
    "Choose another address with web_metrics_listen (immich-triton run --web-metrics-port N); web_metrics_listen= goes "
    "without metrics"
)

WITHIN: Final = 0.8
"""Seconds Immich has to answer; Prometheus gives up after 10, Kubernetes' probes after 1."""


class Metrics:
    """After the addons that answer, so that it sees what became of a request."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = MetricsPage(
            service.measurements.registry, collect=self._look, why_not_ready=self._why_not_ready, remedy=REMEDY
        )

    def configure(self, updated: AbstractSet[str]) -> None:
        """Listen where the option says. Raises OptionsError when that is not possible."""
        if "web_metrics_listen" not in updated:
            return
        try:
            self._page.move(self._service.settings.metrics_listen)
        except (ValueError, RuntimeError) as error:
            raise OptionsError(f"immich-triton: {error}") from error

    def running(self) -> None:
        """Begin to answer: now there is an event loop."""
        self._page.running()

    def done(self) -> None:
        """Give the address back."""
        self._page.close()

    def response(self, flow: HTTPFlow) -> None:
        """Count an answer."""
        if flow.response is not None and flow.live:
            self._service.measurements.answered(flow.response.status_code)

    def error(self, flow: HTTPFlow) -> None:
        """Count a request that got no answer."""
        if flow.live:
            self._service.measurements.not_answered()

    async def _why_not_ready(self) -> dict[str, str]:
        """Tell whether Immich answers: without it there is nothing that the site could do."""
        return {} if await self._service.immich_answers(within=WITHIN) else {"immich": "it does not answer"}

    async def _look(self) -> None:
        database = self._service.database
        self._service.measurements.look(
            immich_up=await self._service.immich_answers(within=WITHIN),
            database_up=None if database is None else database.is_asked,
        )
