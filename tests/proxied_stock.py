"""The gateway's own hooks in this process, before stock's parser: what reaches it of a request, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from attacks import Attack
from mitmproxy.http import Headers, Request
from mitmproxy.net.http.url import parse as parse_url
from mitmproxy.test import taddons, tflow
from stand_in_triton import tensors, write_routes
from stock import Seen, StockPipe

from immich_triton.ml import upstream
from immich_triton.ml.classify import classify
from immich_triton.ml.configuration import Configuration
from immich_triton.ml.gateway import Gateway
from immich_triton.ml.service import Service
from immich_triton.ml.supervisor import Supervisor
from immich_triton.proxy.flow_kind import kind_of, may_go_upstream
from immich_triton.proxy.passthrough import PassThrough


@dataclass
class Outcome:
    """What became of a request: the gateway's own answer (0 when it was passed on), and what stock saw, if anything.

    ``claimed`` tells whether it was taken for a prediction, ``unchanged`` whether its body was passed on byte for byte;
    ``split`` is what stock saw of requests that the gateway sent it itself; ``sent`` and ``answer`` are the bodies.
    """

    status: int = 0
    seen: Seen | None = None
    split: list[Seen] = field(default_factory=list)
    claimed: bool = False
    unchanged: bool = False
    sent: bytes = b""
    answer: bytes = b""

    @property
    def ran(self) -> set[tuple[str, ...]]:
        """Return what stock would have run."""
        return {model for seen in [*self.split, *([self.seen] if self.seen else [])] for model in seen.ran}


class ProxiedStock:
    """Sends requests through the gateway to stock's app; its event loop is its own."""

    def __init__(self, service: Service, stock: StockPipe, runner: asyncio.Runner) -> None:
        self._service = service
        self._passthrough, self._gateway = PassThrough(service, classify), Gateway(service)
        self._stock = stock
        self._runner = runner
        self._split: list[Seen] = []

    def send(self, attack: Attack, *, chunk: int = 65536) -> Outcome:
        """Send a request; stock gets the body in pieces of *chunk* bytes."""
        return self._runner.run(self._send(attack, chunk))

    async def _send(self, attack: Attack, chunk: int) -> Outcome:
        self._split = []
        flow = tflow.tflow(req=as_read(attack))
        await self._passthrough.requestheaders(flow)
        await self._gateway.request(flow)
        outcome = Outcome(split=self._split, claimed=kind_of(flow, self._service.id) == "predict")
        if flow.response:
            outcome.status = flow.response.status_code
            outcome.answer = flow.response.raw_content or b""
        elif may_go_upstream(flow):
            request = flow.request
            content = outcome.sent = request.raw_content or b""
            outcome.unchanged = content == attack.body
            outcome.seen = self._stock.ask(request.data.path, request.headers.fields, content, chunk)
        return outcome

    async def predict(self, _base: str, content_type: str, body: bytes, **_options: Any) -> dict[str, Any]:
        """Stand in for the gateway's client of the upstream."""
        self._split.append(self._stock.ask(b"/predict", [(b"content-type", content_type.encode())], body))
        return {}


def as_read(attack: Attack) -> Request:
    """Return the request as mitmproxy hands it to the addons."""
    target = attack.target.decode("utf-8", "surrogateescape")
    path = parse_url(target)[3].decode() if "://" in target else target
    request = Request.make("POST", "http://stock", attack.body)
    request.data.path = path.encode("utf-8", "surrogateescape")
    lengths = [(b"Content-Length", str(len(attack.body)).encode())]
    request.headers = Headers([(b"Host", b"stock"), *attack.headers, *lengths])
    return request


@contextmanager
def proxied(stock: StockPipe, directory: Path) -> Iterator[ProxiedStock]:
    """Run the hooks with routes for OCR and CLIP, and a Triton that answers at once."""
    service = Service()
    configuration = Configuration(service)
    own = {"immich_models": str(write_routes(directory / "models")), "immich_state_dir": str(directory / "state")}
    with asyncio.Runner() as runner, taddons.context(configuration) as context:
        context.configure(configuration, **own)
        assert service._routes
        service._routes.look_again()  # the second look, for which every request of the start waits
        one = ProxiedStock(service, stock, runner)
        service._clients = mock.Mock(infer=infer), Supervisor(None)
        with (
            mock.patch.object(upstream, "predict", one.predict),
            mock.patch("immich_triton.proxy.wire.close_upstream"),
        ):
            yield one


async def infer(call: Any, *_: object, **__: object) -> dict[str, Any]:
    """Answer for Triton with the tensors of its stand-in."""
    return {
        output["name"]: np.array(output["data"], object if output["datatype"] == "BYTES" else None).reshape(
            output["shape"]
        )
        for output in tensors(call.pipeline.name)
    }
