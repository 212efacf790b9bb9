"""Whether a pipeline answered with the weights of its route, by the fingerprint that comes out with every embedding."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from immich_triton.triton.inference import Call, WrongWeights
from immich_triton.triton.weights import OUTPUT, question

if TYPE_CHECKING:
    from immich_triton.ml.route_file import Route
    from immich_triton.triton.pipelines import Pipeline

logger = logging.getLogger(__name__)


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
        f"{', '.join(route.names)}. On the machine with the exported model start immich-triton run, or "
        f"immich-triton triton, which adds it, and copy {_place(route)} from there to {route.source}; or run "
        "immich-triton export clip again"
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


def _key(pipeline: Pipeline) -> tuple[object, ...]:
    return (*pipeline.all_models, pipeline.fingerprint)


def _place(route: Route) -> str:
    return f"{route.source.parent.name}/{route.source.name}"


def _short(values: list[Any]) -> str:
    return ", ".join(map(str, values[:2]))[:80] or "none"
