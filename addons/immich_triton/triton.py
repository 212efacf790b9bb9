"""Async client of Triton: one retry loop, bounded by the request's deadline, behind a gate per pipeline.

Errors, by cause::

    TritonError
    ├── BadInput         the image or text itself; never retried, harms nobody else          → 400
    ├── Unavailable      Triton did not come back, or did not answer, within the deadline    → 503
    └── ServerFault      Triton failed on this request again and again, or answers garbage   → 500
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import numpy as np
import numpy.typing as npt
from mitmproxy.utils.asyncio_utils import create_task
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from immich_triton.routes import Parameter, Pipeline

logger = logging.getLogger(__name__)

MARK: Final = "bad input: "
"""How a pipeline marks an error that is the request's own fault (`immich_pipelines.errors`, which runs elsewhere)."""

ATTEMPTS: Final = 3
"""How often one request is sent at most. A request that makes the server fail each time must not do so for ever."""

PROBE_FIRST: Final = 0.05
PROBE_LAST: Final = 1.0
"""Bounds of the pause between two readiness probes, in seconds; it doubles from one to the other."""

PROBE_TIMEOUT: Final = 5.0

Array = npt.NDArray[Any]


class TritonError(Exception):
    """A call to Triton did not give an answer."""


class BadInput(TritonError):  # noqa: N818 - as the pipelines call it
    """The pipeline refused the image or the text."""


class Unavailable(TritonError):  # noqa: N818 - HTTP's word for it
    """No answer within the deadline."""


class ServerFault(TritonError):  # noqa: N818 - the counterpart of BadInput
    """Triton failed, was not reachable, or answered something else than promised."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True)
class Call:
    """One request to a pipeline: input *tensor* with *payload*, request *parameters*, the *outputs* wanted."""

    pipeline: Pipeline
    tensor: str
    payload: bytes
    outputs: Sequence[str]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


class Gate:
    """Lets the requests of one pipeline pass while it works; while it does not, one probe asks for all who wait."""

    def __init__(self, client: TritonClient, pipeline: Pipeline) -> None:
        self._client = client
        self._pipeline = pipeline
        self._open = asyncio.Event()
        self._open.set()
        self._probe: asyncio.Task[None] | None = None
        self.reason = ""

    @property
    def is_open(self) -> bool:
        """Whether requests pass."""
        return self._open.is_set()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._open.wait()

    def shut(self, reason: str) -> None:
        """Close the gate until the pipeline and every model behind it report ready."""
        self.reason = reason
        if self._open.is_set():
            self._open.clear()
            logger.warning("%s: waiting for Triton: %s", self._pipeline.name, reason)
            self._probe = create_task(self._reopen(), name=f"probe {self._pipeline.name}", keep_ref=True)

    async def _reopen(self) -> None:
        pause, since = PROBE_FIRST, time.monotonic()
        while True:
            await asyncio.sleep(pause)
            unready = await self._client.not_ready(self._pipeline.all_models, within=PROBE_TIMEOUT)
            if not unready:
                break
            self.reason = "; ".join(f"{model}: {why}" for model, why in unready.items())
            pause = min(2 * pause, PROBE_LAST)
        logger.warning("%s: Triton is back after %.1f s", self._pipeline.name, time.monotonic() - since)
        self._open.set()

    def close(self) -> None:
        """Stop probing."""
        if self._probe:
            self._probe.cancel()


class TritonClient:
    """Calls pipelines at *url*; *timeout* bounds one call, in seconds."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self.url = url
        self._timeout = timeout
        scheme, _, address = url.partition("://")
        # The library's own limit of 100 connections would queue silently; its time-out would hide ours.
        self._http = InferenceServerClient(address, ssl=scheme == "https", conn_limit=0, conn_timeout=None)
        self._gates: dict[str, Gate] = {}

    async def close(self) -> None:
        """Stop the probes and close the connections."""
        for gate in self._gates.values():
            gate.close()
        await self._http.close()

    def gate(self, pipeline: Pipeline) -> Gate:
        """Return the gate of a pipeline (by what must be ready for it: two encoders have two gates)."""
        key = " ".join(pipeline.all_models)
        if key not in self._gates:
            self._gates[key] = Gate(self, pipeline)
        return self._gates[key]

    async def infer(self, call: Call, deadline: float) -> dict[str, Array]:
        """Run *call* and return its outputs by name.

        Waits for Triton and tries again after a fault of the server, until *deadline* seconds are over. Raises
        `BadInput`, `Unavailable` or `ServerFault`.
        """
        gate = self.gate(call.pipeline)
        sent = 0
        try:
            async with asyncio.timeout(deadline):
                while True:
                    await gate.passed()
                    try:
                        return await self._send(call)
                    except ServerFault as fault:
                        sent += fault.sent
                        if sent >= ATTEMPTS:
                            raise
                        gate.shut(str(fault))
        except TimeoutError:
            why = f": {gate.reason}" if gate.reason else ""
            raise Unavailable(
                f"{call.pipeline.name} gave no answer within {deadline:g} s from Triton at {self.url}{why}"
            ) from None

    async def _send(self, call: Call) -> dict[str, Array]:
        tensor = InferInput(call.tensor, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[call.payload]], dtype=np.object_))
        outputs = [InferRequestedOutput(name) for name in call.outputs]
        parameters = {**call.pipeline.parameters, **call.parameters}
        name = call.pipeline.name
        try:
            async with asyncio.timeout(self._timeout):
                result = await self._http.infer(name, [tensor], outputs=outputs, parameters=parameters)
        except InferenceServerException as error:
            message = error.message() or ""
            if error.status() == "400" and MARK in message:
                raise BadInput(message.partition(MARK)[2]) from error
            raise ServerFault(f"{name} failed with status {error.status()}: {message}") from error
        except TimeoutError as error:
            raise ServerFault(f"{name} gave no answer to one call within {self._timeout:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise ServerFault(f"cannot connect to {self.url}: {error.os_error.strerror}", sent=False) from error
        except aiohttp.ClientError as error:
            raise ServerFault(f"the connection to {self.url} broke: {error!r}") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ServerFault(f"{name} answered what is no inference response: {error!r}") from error
        arrays = {output: _array(result, output) for output in call.outputs}
        missing = [output for output, array in arrays.items() if array is None]
        if missing:
            # Seen from Triton's response cache, which stores errors as empty 200s.
            raise ServerFault(f"{name} answered without {', '.join(missing)}")
        return {output: array for output, array in arrays.items() if array is not None}

    async def not_ready(self, models: Iterable[str], *, within: float) -> dict[str, str]:
        """Return what is not ready among *models*, with the reason; takes at most *within* seconds."""
        names = list(dict.fromkeys(models))
        reasons = await asyncio.gather(*(self._why_not_ready(name, within) for name in names))
        return {name: reason for name, reason in zip(names, reasons, strict=True) if reason}

    async def _why_not_ready(self, model: str, within: float) -> str:
        try:
            async with asyncio.timeout(within):
                return "" if await self._http.is_model_ready(model) else "not ready in Triton"
        except TimeoutError:
            return f"Triton at {self.url} did not answer within {within:g} s"
        except (aiohttp.ClientError, InferenceServerException, OSError) as error:
            return f"cannot reach Triton at {self.url}: {error}"


def _array(result: Any, output: str) -> Array | None:
    try:
        array: Array | None = result.as_numpy(output)
    except (ValueError, TypeError, KeyError) as error:
        raise ServerFault(f"output {output} cannot be read: {error!r}") from error
    return array
