"""A request of a dynamic batch, and its answer or its own error, sent as soon as it is there."""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from immich_pipelines.decode import MAX_PIXELS
from immich_pipelines.errors import MARK, BadInput

Array = npt.NDArray[Any]


class Request:
    """One request: its bytes and its knobs. The knobs belong to this request, never to the batch it came in."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._parameters: dict[str, str | int | bool | float] = json.loads(request.parameters() or "{}")

    def payload(self, name: str) -> bytes:
        """Return the BYTES [1,1] input *name*. Raises `BadInput` on any other shape."""
        tensor = pb_utils.get_input_tensor_by_name(self._request, name)
        values = tensor.as_numpy().reshape(-1)
        if values.size != 1:
            raise BadInput(f"input {name} must hold exactly one element, got {values.size}")
        return bytes(values[0])

    def text(self, name: str, default: str = "") -> str:
        """Return the parameter *name* as a string."""
        return str(self._parameters.get(name, default))

    def number(self, name: str, default: float, low: float = -math.inf, high: float = math.inf) -> float:
        """Return the parameter *name* as a finite float; it may travel as a string, since BLS takes no floats.

        Raises `BadInput` when it is none, or lies outside *low* to *high*, both included.
        """
        try:
            value = float(self._parameters.get(name, default))
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise BadInput(f"parameter {name} must be a number, got {self._parameters.get(name)!r}")
        if not low <= value <= high:
            bounds = f"be at least {low:g}" if high == math.inf else f"lie between {low:g} and {high:g}"
            raise BadInput(f"parameter {name} must {bounds}, got {value:g}")
        return value

    def score(self, name: str, default: float) -> float:
        """Return the parameter *name*, the lowest score of what is wanted: 0 to 1. Raises `BadInput`."""
        return self.number(name, default, 0, 1)

    def count(self, name: str, default: int) -> int:
        """Return the parameter *name*, a number of something: at least 1. Raises `BadInput`."""
        return int(self.number(name, default, low=1))

    def max_pixels(self) -> int:
        """Return how many pixels an image may have; the gateway says so with every image."""
        return self.count("max_pixels", MAX_PIXELS)

    def flag(self, name: str, default: bool) -> bool:
        """Return the parameter *name* as a bool (``true``/``false`` when it is a string)."""
        value = self._parameters.get(name, default)
        return value.lower() == "true" if isinstance(value, str) else bool(value)


def answer(outputs: Mapping[str, Array]) -> Any:
    """Make the response of one request."""
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, value) for name, value in outputs.items()])


def failure(error: BaseException) -> Any:
    """Make the error response of one request: `BadInput` is the request's fault, all else the server's."""
    if isinstance(error, BadInput):
        text, code = MARK + str(error), pb_utils.TritonError.INVALID_ARG
    else:
        text, code = f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL
    # A text with half a character in it cannot be sent.
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text.encode("utf-8", "replace").decode(), code))


class Reply:
    """Where the answer to one request goes, once.

    ``execute`` then returns None: a list would be sent when its slowest member is there. It returns when all are
    answered, because Triton ends the requests of a process that dies only as long as ``execute`` runs; and it must
    not raise, because after an answer of the batch was sent Triton 2.51 frees memory twice then, and breaks down.
    """

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()
        # Triton 2.51 itself drops the others without holding Python's lock, and the process crashes.
        self._wanted = frozenset(request.requested_output_names())
        self.sent = False

    def answer(self, outputs: Mapping[str, Array]) -> None:
        """Send those of *outputs* that were asked for; what cannot be made a response becomes an error."""
        try:
            response = answer({name: value for name, value in outputs.items() if name in self._wanted})
        except Exception as error:  # noqa: BLE001 - becomes the answer of this request alone
            response = failure(error)
        self._send(response)

    def fail(self, error: BaseException) -> None:
        """Send the error, see `failure`."""
        self._send(failure(error))

    def _send(self, response: Any) -> None:
        try:
            self.sent = True
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:  # noqa: BLE001
            # The sender is closed, and the request would wait for ever. Triton answers it when this process ends.
            traceback.print_exc()
            os._exit(1)


def accept[Job](requests: Sequence[Any], parse: Callable[[Request], Job]) -> list[tuple[Reply, Job]]:
    """Return the job of each request with where its answer goes; what cannot be parsed is answered here."""
    accepted = []
    for request in requests:
        reply = Reply(request)
        try:
            accepted.append((reply, parse(Request(request))))
        except Exception as error:  # noqa: BLE001 - becomes the answer of this request alone
            reply.fail(error)
    return accepted


def serve[Job, Result](
    requests: Sequence[Any],
    parse: Callable[[Request], Job],
    run: Callable[[Sequence[Job]], Iterable[tuple[int, Result | Exception]]],
    outputs: Callable[[Result], Mapping[str, Array]],
) -> None:
    """Answer the requests of one dynamic batch: *parse* them, and send what *run* yields as it comes. Never raises.

    *run* takes the jobs and yields pairs of a job's index and its result, in any order.
    """
    accepted = accept(requests, parse)
    fault: BaseException = RuntimeError("the pipeline gave no answer")
    try:
        for index, result in run([job for _, job in accepted]):
            _deliver(accepted[index][0], result, outputs)
    except BaseException as error:  # noqa: BLE001 - see `Reply`
        fault = error
    for reply, _ in accepted:
        if not reply.sent:
            reply.fail(fault)


def _deliver[Result](
    reply: Reply, result: Result | Exception, outputs: Callable[[Result], Mapping[str, Array]]
) -> None:
    if isinstance(result, Exception):
        reply.fail(result)
        return
    try:
        tensors = outputs(result)
    except Exception as error:  # noqa: BLE001 - becomes the answer of this request alone
        reply.fail(error)
    else:
        reply.answer(tensors)
