"""Addon: bounds what clients and the upstream may take: connections, bytes, time."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from immich_triton.proxy import open_files, progress, wire
from immich_triton.proxy.answers import STOPPING, error_response
from immich_triton.proxy.flow_kind import kind_of, may_go_upstream
from immich_triton.proxy.progress import AHEAD, LAST, Flood, Progress, Stage

if TYPE_CHECKING:
    from mitmproxy.connection import Client, Server
    from mitmproxy.http import HTTPFlow
    from mitmproxy.proxy.server_hooks import ServerConnectionHookData

    from immich_triton.core.app import App
    from immich_triton.core.observer import Refusal
    from immich_triton.proxy.flow_kind import FlowKind
    from immich_triton.proxy.settings import ProxySettings

logger = logging.getLogger(__name__)

SWEEP: Final = 0.25
"""Seconds between two looks at who takes too long."""

IDLE_TIMEOUT: Final = 75.0
"""Seconds a connection may wait for its next request; Node's fetch closes its own after 4."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to connect to the upstream."""

SMALL: Final = 64 * 1024
"""A body of up to so many bytes holds no image but a query, which never has to stand back for images."""


SOCKETS_PER_CLIENT: Final = 2
SOCKETS_BESIDE: Final = 200
"""A client that passes through has a connection to the stock ML too; beside them there are those to Triton, files, …"""


class Limits:
    """After the addon that gives requests their kind, before those that answer them."""

    def __init__(self, app: App[ProxySettings]) -> None:
        self._app = app

    def running(self) -> None:
        """Make room for as many sockets as were promised; look after slow clients."""
        needed = SOCKETS_PER_CLIENT * self._app.settings.max_connections + SOCKETS_BESIDE
        if (allowed := open_files.allow(needed)) < needed:
            logger.warning(
                "%s clients (immich_max_connections) may need %s open files, and this process may have %s: raise the "
                "hard limit (ulimit -Hn, LimitNOFILE= of systemd), or lower immich_max_connections",
                self._app.settings.max_connections,
                needed,
                allowed,
            )
        self._app.spawn(self._sweep(), "look after slow clients")

    def client_connected(self, client: Client) -> None:
        """Take one more client, or not."""
        if len(wire.client_ids()) > self._app.settings.max_connections:
            client.error = "too many connections (immich_max_connections)"
            self._app.observers.refused("connections", 0, photo=True)
            return
        one = progress.of(client)
        one.writer = wire.writer_of(client)
        one.tap = wire.tap(client, client, lambda count: self._received(one, count))

    def _received(self, one: Progress, count: int) -> None:
        try:
            one.received(count, wire.unparsed(one.client, one.client))
        except Flood:
            if one.stage is Stage.HEAD:
                self._refuse(one, 431, f"The headers are larger than {AHEAD} bytes", "headers")
            elif one.stage is Stage.BODY and one.flow and "transfer-encoding" in one.flow.request.headers:
                most = self._app.settings.max_body
                detail = f"The body, in chunks, has more than the {most} bytes of immich_max_body_mib"
                self._refuse(one, 413, detail, "too_large")
            raise

    def client_disconnected(self, client: Client) -> None:
        """Give back what the client held."""
        if one := progress.forget(client):
            wire.hang_up(one.writer)
            self._release(one)

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """Refuse what is too large before it is read."""
        one = progress.of(flow.client_conn)
        one.begin(flow)
        if flow.error:
            return
        kind = kind_of(flow, self._app.id)
        length = self._length_of(flow, kind)
        if self._app.draining and kind != "ping":
            one.refused = True
            one.enter(Stage.BODY)
            self._app.observers.refused("draining", 503, photo=kind == "predict")
            await wire.answer_at_once(flow, error_response(503, STOPPING))
        elif kind == "predict":
            one.enter(Stage.BODY, length + AHEAD)
            await self._admit(flow, one, length)
        elif kind == "ping" and (length or "transfer-encoding" in flow.request.headers):
            self._app.observers.refused("too_large", 413)
            await wire.answer_at_once(flow, error_response(413, "GET /ping has no body"))
        else:
            one.enter(Stage.BODY, None)

    def _length_of(self, flow: HTTPFlow, kind: FlowKind | None) -> int:
        """Return how many bytes the body has: of one in chunks as many as it may have, since it does not say."""
        if kind == "predict" and "transfer-encoding" in flow.request.headers:
            return self._app.settings.max_body
        return int(flow.request.headers.get("content-length", "0"))

    async def _admit(self, flow: HTTPFlow, one: Progress, length: int) -> None:
        settings, budget = self._app.settings, progress.BUDGET
        if length > settings.max_body:
            detail = f"The body has {length} bytes, more than the {settings.max_body} of immich_max_body_mib"
            self._app.observers.refused("too_large", 413)
            await wire.answer_at_once(flow, error_response(413, detail))
        elif length <= SMALL:
            budget.take_anyway(length)
            self._hold(one, length)
        elif budget.take(length):
            self._hold(one, length)
        else:
            detail = f"{budget.held} bytes are waiting for Triton already (immich_max_waiting_mib); come again later"
            self._app.observers.refused("no_room", 503, photo=True)
            await wire.answer_at_once(flow, error_response(503, detail))

    def _hold(self, one: Progress, count: int) -> None:
        one.held += count
        self._app.observers.bytes_held(progress.BUDGET.held)

    def _release(self, one: Progress) -> None:
        if one.held:
            progress.BUDGET.free(one.held)
            one.held = 0
            self._app.observers.bytes_held(progress.BUDGET.held)

    def request(self, flow: HTTPFlow) -> None:
        """Take note that the request has arrived."""
        one = progress.of(flow.client_conn)
        if one.answered:
            self._finish(one)
        elif one.flow is flow:
            one.enter(Stage.ANSWER)

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Take note that the answer begins."""
        one = progress.of(flow.client_conn)
        one.begun = True
        if flow.response and flow.response.status_code == 101:
            self._release(one)
            one.enter(Stage.TUNNEL, None)

    def response(self, flow: HTTPFlow) -> None:
        """Take note that the request is over, unless its body still arrives."""
        one = progress.of(flow.client_conn)
        if one.stage is Stage.BODY:
            one.answered = True
        elif one.stage not in LAST:
            self._finish(one)

    def error(self, flow: HTTPFlow) -> None:
        """Take note that the request is over."""
        self._finish(progress.of(flow.client_conn))

    def _finish(self, one: Progress) -> None:
        self._release(one)
        one.finish()

    def server_connect(self, data: ServerConnectionHookData) -> None:
        """Read no further while the upstream is not there: what a client sends would pile up in memory."""
        one = progress.of(data.client)
        one.connecting = time.monotonic()
        if one.tap:
            one.tap.hold()

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """Go on, and see when the upstream sends something."""
        one = self._connected(data)
        tap = wire.tap(data.client, data.server, lambda count: self._passed_on(one, data.server, count))
        one.upstream_tap = tap

    def _passed_on(self, one: Progress, server: Server, count: int) -> None:
        """Go on with what the upstream sent, unless it is a head (or a chunk's line) that does not end."""
        one.passed_on(count)
        if wire.unparsed(one.client, server) > AHEAD and one.upstream_tap is not None:
            # No error: mitmproxy would quote all of it, and answer in its own words.
            one.upstream_tap.hold()
            self._app.observers.upstream_failed(502)
            detail = f"The stock Immich ML sent headers of more than {AHEAD} bytes"
            self._answer(one, 502, detail)

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        """Go on; the request gets its 502."""
        self._connected(data)

    @staticmethod
    def _connected(data: ServerConnectionHookData) -> Progress:
        one = progress.of(data.client)
        one.connecting, one.active = None, time.monotonic()
        if one.tap:
            one.tap.go_on()
        return one

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            alive = wire.client_ids()
            for one in progress.everyone():
                if one.client.id not in alive:
                    self.client_disconnected(one.client)
                    continue
                try:
                    self._look_at(one, self._app.settings, time.monotonic())
                except Exception:
                    logger.exception("cannot look after a connection")

    def _look_at(self, one: Progress, settings: ProxySettings, now: float) -> None:
        if one.stage is Stage.IDLE:
            if now - one.since > IDLE_TIMEOUT:
                wire.end(one.client)
        elif one.stage is Stage.HEAD:
            if now - one.since > settings.header_timeout:
                detail = f"The headers did not arrive within {settings.header_timeout} s (immich_header_timeout)"
                self._refuse(one, 408, detail, "too_slow")
        elif one.flow is None or one.stage in LAST:
            pass
        elif one.connecting is not None:
            if now - one.connecting > CONNECT_TIMEOUT:
                self._give_up_upstream(one, f"no connection within {CONNECT_TIMEOUT:g} s")
        elif one.stage is Stage.BODY and (one.tap is None or one.tap.reading):
            slow = kind_of(one.flow, self._app.id) == "predict"
            if now - (one.since if slow else one.active) > settings.body_timeout:
                detail = f"The body did not arrive within {settings.body_timeout} s (immich_body_timeout)"
                self._refuse(one, 408, detail, "too_slow")
        elif may_go_upstream(one.flow) and now - one.active > settings.upstream_timeout:
            self._give_up_upstream(one, f"silent for {settings.upstream_timeout} s (immich_upstream_timeout)")

    def _give_up_upstream(self, one: Progress, reason: str) -> None:
        self._app.observers.upstream_failed(504)
        self._answer(one, 504, f"The stock Immich ML did not answer: {reason}")

    def _refuse(self, one: Progress, status: int, detail: str, reason: Refusal) -> None:
        self._app.observers.refused(reason, status)
        self._answer(one, status, detail)

    @staticmethod
    def _answer(one: Progress, status: int, detail: str) -> None:
        if one.begun and one.stage is not Stage.HEAD:
            wire.end(one.client)
        else:
            wire.answer_and_end(one.client, one.flow, error_response(status, detail))
        one.enter(Stage.CLOSING, None)
