"""One exchange with Triton over HTTP, and what its failure means."""

from __future__ import annotations

import asyncio
import logging
import struct
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np
import numpy.typing as npt
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from immich_triton.core.redaction import redact
from immich_triton.core.request_id import current_id
from immich_triton.triton import weights
from immich_triton.triton.faults import diagnose
from immich_triton.triton.inference import BadInput, Call, Refused, ServerFault, WrongWeights
from immich_triton.triton.wire import KEY_HEADER, key_headers

logger = logging.getLogger(__name__)

MARK: Final = "bad input: "
"""How a pipeline marks an error that is the request's own fault (`immich_pipelines.errors`, which runs elsewhere)."""

GARBAGE: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error, MemoryError)
"""What tritonclient and NumPy raise over an answer that is none."""

NOT_READY: Final = "not ready in Triton"
"""Why a model is not ready: Triton says so."""

UNREACHABLE: Final = "cannot reach Triton"
"""How the reason begins where nobody took the connection, or it broke."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Capacity:
    """How many processes a pipeline has, and how many requests each takes at a time."""

    processes: int
    batch: int

    @property
    def calls(self) -> int:
        """How many requests can be worked on at a time."""
        return self.processes * self.batch

    @property
    def large(self) -> int:
        """How many of them may have large images, each of which keeps a process busy: a third, and at least one."""
        return max(1, self.processes // 3)


class Transport:
    """Connections to the Triton at *url*. A call takes as long as it takes: who waits for it may cancel it."""

    def __init__(self, url: str, *, key: str = "") -> None:
        self.url = url
        # Triton would pack every answer, the 2 kB of a vector too, and both sides would work for it.
        self._headers = {**key_headers(key), "Accept-Encoding": "identity"}
        self._has_key = bool(key)
        self._key_taken = False
        scheme, _, address = url.partition("://")
        # The library's own limit of 100 connections would queue silently; its time-out would hide ours.
        self._http = InferenceServerClient(address, ssl=scheme == "https", conn_limit=0, conn_timeout=None)

    async def close(self) -> None:
        """Close the connections; calls that are still running fail."""
        await self._http.close()

    async def infer(self, call: Call) -> dict[str, Array]:
        """Run *call* once. Raises `BadInput`, `Refused`, `WrongWeights` or `ServerFault`."""
        tensor = InferInput(call.tensor, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[call.payload]], dtype=np.object_))
        outputs = [InferRequestedOutput(name) for name in call.outputs]
        parameters = {**call.pipeline.parameters, **call.parameters}
        name = call.pipeline.name
        try:
            result = await self._http.infer(
                name,
                [tensor],
                outputs=outputs,
                request_id=current_id(),
                parameters=parameters,
                headers=dict(self._headers),
            )
        except InferenceServerException as error:
            message = error.message() or ""
            if error.status() == "400" and MARK in message:
                raise BadInput(message.partition(MARK)[2]) from error
            logger.debug("%s failed with status %s: %s", name, error.status(), message)
            if error.status() in ("401", "403"):
                self._key_taken = False
                raise Refused(self._refusal()) from error
            if error.status() in ("400", "404") and f"output '{weights.OUTPUT}'" in message:
                raise WrongWeights(weights.no_proof(name, self.url)) from error
            if weights.OUTPUT in call.outputs and weights.STALE in message:
                raise WrongWeights(weights.stale(name, self.url)) from error
            about = redact(message, call.payload if call.tensor == "TEXT" else b"")
            found = diagnose(error.status() or "", message, name)
            text = f"{name} failed with status {error.status()}: {about}"
            raise ServerFault(text, kind=found.kind, model=found.model, renewed=found.renewed) from error
        except aiohttp.ClientConnectorError as error:
            raise ServerFault(f"cannot connect to {self.url}: {error.os_error.strerror}", kind="unreachable") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerFault(f"the connection to {self.url} broke: {error!r}", kind="broken") from error
        except GARBAGE as error:
            logger.debug("%s answered what is no inference response: %r", name, error)
            raise ServerFault(f"{name} answered what is no inference response ({type(error).__name__})") from error
        arrays = {output: _array(result, output) for output in call.outputs}
        missing = [output for output, array in arrays.items() if array is None]
        if missing == [weights.OUTPUT] and len(arrays) > 1:
            raise WrongWeights(weights.no_proof(name, self.url))
        if missing:
            # Seen from Triton's response cache, which stores errors as empty 200s.
            raise ServerFault(f"{name} answered without {', '.join(missing)}")
        return {output: array for output, array in arrays.items() if array is not None}

    async def is_live(self, within: float) -> bool:
        """Return whether the server answers at all, whatever its models do."""
        try:
            async with asyncio.timeout(within):
                return bool(await self._http.is_server_live(headers=dict(self._headers)))
        except (aiohttp.ClientError, InferenceServerException, OSError, *GARBAGE):
            return False

    async def why_not_ready(self, model: str, within: float) -> str:
        """Return why *model* is not ready, or nothing when it is; takes at most *within* seconds."""
        try:
            async with asyncio.timeout(within):
                ready = await self._http.is_model_ready(model, headers=dict(self._headers))
        except TimeoutError:
            return f"Triton at {self.url} did not answer within {within:g} s"
        except (aiohttp.ClientError, InferenceServerException, OSError) as error:
            return f"{UNREACHABLE} at {self.url}: {error}"
        except GARBAGE as error:  # whatever this raises would leave a breaker open for ever
            return f"Triton at {self.url} answered what says nothing about a model ({type(error).__name__})"
        return "" if ready else NOT_READY

    async def why_refused(self, within: float) -> str:
        """Return the reason when Triton does not take our key, or does not say; readiness alone is open to all."""
        if self._key_taken:
            return ""
        try:
            async with asyncio.timeout(within):
                await self._http.get_model_repository_index(headers=dict(self._headers))
        except InferenceServerException as error:
            status = error.status() or ""
            if status in ("401", "403"):
                return self._refusal()
            # A proxy that shows only a part of the API (404) leaves us without an answer; what is ready tells the rest.
            return "" if status.startswith("4") else f"Triton at {self.url} answered {status} when asked for its models"
        except TimeoutError:
            return f"Triton at {self.url} did not answer within {within:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"{UNREACHABLE} at {self.url}: {error}"
        except GARBAGE as error:
            return f"Triton at {self.url} answered what is no list of models ({type(error).__name__})"
        self._key_taken = True
        return ""

    async def capacity(self, model: str, within: float) -> Capacity | None:
        """Return how much a pipeline can work on at a time; None when that is not to be learned now."""
        try:
            async with asyncio.timeout(within):
                config = await self._http.get_model_config(model, headers=dict(self._headers))
            groups = [group["count"] * max(1, len(group.get("gpus", []))) for group in config["instance_group"]]
            return Capacity(processes=int(sum(groups)), batch=max(1, int(config["max_batch_size"])))
        except (aiohttp.ClientError, InferenceServerException, OSError, *GARBAGE):
            return None

    def _refusal(self) -> str:
        wrong = "refuses our key" if self._has_key else "wants a key and the gateway has none"
        return (
            f"Triton at {self.url} {wrong}: set immich_triton_key to the KEY of Triton's "
            f"--http-restricted-api=inference,model-repository:{KEY_HEADER}=KEY"
        )


def _array(result: Any, output: str) -> Array | None:
    try:
        array: Array | None = result.as_numpy(output)
    except GARBAGE as error:
        logger.debug("output %s cannot be read: %r", output, error)
        raise ServerFault(f"output {output} cannot be read ({type(error).__name__})") from error
    return array
