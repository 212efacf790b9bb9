"""Addon: a request id, by which the logs of Immich's side, of the gateway, of Triton and of the stock ML can be joined.

Taken from the client's ``X-Request-ID`` or made here; passed on to Triton and to the upstream, returned with the
answer, and put before every line that the gateway logs about the request.
"""

from __future__ import annotations

import logging
import re
import secrets
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, override

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core import flow_state

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from mitmproxy.addonmanager import Loader
    from mitmproxy.http import HTTPFlow, Response

HEADER: Final = "X-Request-ID"

_ACCEPTED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""An id of the client that may stand in a log: nothing else could forge lines or fill the disk."""

_current: Final = flow_state.by_task(flow_state.CURRENT_ID)


def current_id() -> str:
    """Return the id of the request that the running task works for; empty outside of a request."""
    return _current.get()


def detached[T](work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run in the background what serves everybody: it does not take on the id of the request that started it."""
    context = copy_context()
    context.run(_current.set, "")
    task: asyncio.Task[T] = context.run(create_task, work, name=name, keep_ref=True)
    return task


def id_of(flow: HTTPFlow) -> str:
    """Return the id that a flow was given; empty when it was given none."""
    return flow_state.REQUEST_ID.get(flow)


def stamp(flow: HTTPFlow, response: Response) -> None:
    """Return the id with an answer; one that the upstream chose stays."""
    if (known := id_of(flow)) and HEADER not in response.headers:
        response.headers[HEADER] = known


class RequestIds:
    """Before all that answer or log."""

    def __init__(self) -> None:
        self._prefix = _Prefix()

    def load(self, _loader: Loader) -> None:
        """Put the id before the lines of our loggers."""
        _package_logger().addHandler(self._prefix)

    def done(self) -> None:
        """Leave the loggers as they were."""
        _package_logger().removeHandler(self._prefix)

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Give every flow its id, and hand it on to the upstream."""
        asked = flow.request.headers.get(HEADER, "")
        known = asked if _ACCEPTED.fullmatch(asked) else secrets.token_hex(8)
        flow_state.REQUEST_ID.set(flow, known)
        flow.request.headers[HEADER] = known
        _current.set(known)

    def request(self, flow: HTTPFlow) -> None:
        """Let whatever works for this request know the id: mitmproxy runs all hooks of one event in one task."""
        _current.set(id_of(flow))

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Return the id with an answer of the upstream."""
        self.response(flow)

    def response(self, flow: HTTPFlow) -> None:
        """Return the id with an answer of our own."""
        _current.set(id_of(flow))
        if flow.response:
            stamp(flow, flow.response)

    def error(self, flow: HTTPFlow) -> None:
        """Let those who log the error know the id."""
        _current.set(id_of(flow))


class _Prefix(logging.Handler):
    """Writes nothing. Handlers of a parent come after those of the child: mitmproxy's, at the root, see the id."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if known := current_id():
            record.msg = f"[{known}] {record.msg}"


def _package_logger() -> logging.Logger:
    return logging.getLogger("immich_triton")
