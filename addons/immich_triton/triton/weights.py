"""Whether Triton answers CLIP with the very weights that a route names: vectors of two models must never mix.

Every encoder has a *fingerprint*, a number that stands for its weights. An export writes it into the model, where it
comes out with every embedding, and into ``route.toml``. The pipelines hand it on as their output `OUTPUT`, and what
does not equal the route's is no answer. It is an output and not a request parameter, which a pipeline of an older
version would ignore without a word.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from immich_triton.triton.inference import Call, WrongWeights

if TYPE_CHECKING:
    from immich_triton.ml.routes import Pipeline, Route

logger = logging.getLogger(__name__)

OUTPUT: Final = "FINGERPRINT"
"""INT64 [1,1]."""

RECORD: Final = "export.json"
"""Beside each exported model: its origin, and the fingerprint."""

HIGHEST: Final = 2**63 - 1

_IMAGE: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)
"""A PNG of one black pixel."""


def recorded(models: Path, encoder: object, weights_sha256: str) -> int | None:
    """Return the fingerprint of *encoder* as its export recorded it in the repository *models*.

    None when the record is not there, is not readable, or is about other weights than the route's.
    """
    if not isinstance(encoder, str) or Path(encoder).name != encoder:
        return None
    try:
        record = json.loads((models / encoder / RECORD).read_text(encoding="utf-8"))
        fingerprint = record["fingerprint"]
        same = record["weights"]["sha256"] == weights_sha256
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return fingerprint if same and type(fingerprint) is int and 0 <= fingerprint <= HIGHEST else None


def require(route: Route, pipeline: Pipeline) -> None:
    """Raise `WrongWeights` when the route does not say by which fingerprint its pipeline's answers are known."""
    if pipeline.fingerprint is None:
        raise WrongWeights(unknown(route))


def compare(route: Route, pipeline: Pipeline, tensors: Mapping[str, Any]) -> None:
    """Raise `WrongWeights` unless the answer *tensors* was computed with the weights of *route*."""
    require(route, pipeline)
    answered = tensors[OUTPUT].reshape(-1).tolist()
    if answered != [pipeline.fingerprint]:
        raise WrongWeights(
            f"{pipeline.name} in Triton answers with other weights (fingerprint {_short(answered)}) than "
            f"{route.source} says ({pipeline.fingerprint}); nothing is answered, because vectors of two models must "
            f"not mix in the search index. If Triton has the right model, copy {_place(route)} from its repository to "
            f"{route.source}; if not, put the model of this route there, and restart Triton"
        )


def unknown(route: Route) -> str:
    """Return what is wrong with a route without a fingerprint, and what to do."""
    return (
        f"{route.source} does not say which weights answer (fingerprint), so nothing is answered under "
        f"{', '.join(route.names)}. On the machine with the exported model start `make run` or immich-triton triton, "
        f"which adds it, and copy {_place(route)} from there to {route.source}; or run immich-triton export clip again"
    )


def no_proof(pipeline: str, url: str) -> str:
    """Return what is wrong with a pipeline that gives no `OUTPUT`, and what to do."""
    return (
        f"{pipeline} in Triton at {url} does not say which weights it answers with (no output {OUTPUT}), so nothing is "
        "answered: it is of an older version. Update immich-triton on Triton's machine and restart `make run` or "
        "immich-triton triton there (for another server copy triton_models/clip_image, triton_models/clip_text and "
        f"triton_backends/immich_pipelines). A config.pbtxt that was edited there stays: add the output {OUTPUT} "
        f"(TYPE_INT64, dims [ 1 ]) to that of {pipeline}"
    )


STALE: Final = "has other weights than in its folder"
"""How a pipeline's error says that an export replaced an encoder which Triton has not loaded anew yet."""


def stale(pipeline: str, url: str) -> str:
    """Return what is wrong when Triton goes on with the weights before an export, and what to do."""
    return (
        f"{pipeline} in Triton at {url} has an encoder in memory whose files an export has replaced, so nothing is "
        "answered. `make run` and immich-triton triton load it anew within seconds; restart any other Triton"
    )


class Doubts:
    """Pipelines that did not answer with their route's weights, until they do: found out by asking again."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[object, ...], str] = {}

    def add(self, pipeline: Pipeline, reason: WrongWeights) -> None:
        """Take note that *pipeline* gave no answer that could be used."""
        self._reasons[_key(pipeline)] = str(reason)

    def settle(self, pipeline: Pipeline) -> None:
        """Take note that *pipeline* answers with the right weights."""
        self._reasons.pop(_key(pipeline), None)

    def about(self, routes: Iterable[Route]) -> dict[str, str]:
        """Return the pipelines of CLIP among *routes* that would not be believed, with the reason."""
        found = {}
        for route in routes:
            for pipeline in route.pipelines if route.task == "clip" else ():
                reason = self._reasons.get(_key(pipeline), "") if pipeline.fingerprint is not None else unknown(route)
                if reason:
                    found[pipeline.name] = reason
        return found

    async def ask_again(self, routes: Iterable[Route], ask: Callable[[Call], Awaitable[Mapping[str, Any]]]) -> None:
        """Ask what is in doubt by *ask*; what no route names any more is forgotten."""
        known = {_key(pipeline): (route, pipeline) for route in routes for pipeline in route.pipelines}
        self._reasons = {key: reason for key, reason in self._reasons.items() if key in known}
        for route, pipeline in [known[key] for key in self._reasons]:
            try:
                compare(route, pipeline, await ask(question(pipeline)))
            except WrongWeights as reason:
                self.add(pipeline, reason)
            except Exception as error:  # noqa: BLE001 - no answer, or none that can be read: the doubt remains
                logger.debug("%s does not tell its weights: %r", pipeline.name, error)
            else:
                self.settle(pipeline)
                logger.warning("%s answers with the weights of its route again", pipeline.name)


def question(pipeline: Pipeline) -> Call:
    """Return the smallest request by which *pipeline* shows its weights."""
    if "visual" in pipeline.types:
        return Call(pipeline, "IMAGE", _IMAGE, (OUTPUT,))
    return Call(pipeline, "TEXT", b"a", (OUTPUT,))


def _key(pipeline: Pipeline) -> tuple[object, ...]:
    return (*pipeline.all_models, pipeline.fingerprint)


def _place(route: Route) -> str:
    return f"{route.source.parent.name}/{route.source.name}"


def _short(values: list[Any]) -> str:
    return ", ".join(map(str, values[:2]))[:80] or "none"
