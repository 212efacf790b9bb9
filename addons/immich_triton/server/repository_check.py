"""Whether a model repository can be deployed, from its files alone: configs, tensors, routes, vector sizes, hashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from immich_pipelines import onnx_metadata
from immich_triton.export.manifest import ManifestError, changed_files
from immich_triton.export.repository import sha256
from immich_triton.ml.route_file import Route, RouteError, read_route, route_files
from immich_triton.ml.routes import RouteTable
from immich_triton.ml.tasks import TASKS
from immich_triton.server import model_tensors
from immich_triton.server.model_tensors import TensorError
from immich_triton.server.preflight import missing_files
from immich_triton.server.triton_models import PIPELINES
from immich_triton.triton import weights

BACKENDS: Final = ("onnxruntime", "python")

ADDED_BY_RUN: Final = "immich-triton run, or immich-triton triton, over this repository puts it right"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, about *where*: a model, a route, the whole. An error or a warning has a *fix*."""

    level: Literal["ok", "warning", "error"]
    where: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """Return it on one line."""
        line = f"{self.level}: {self.where}: {self.text}" + (f" → {self.fix}" if self.fix else "")
        return " ".join(line.split())


def check(models: Path) -> Iterator[Finding]:
    """Yield what was found in the repository *models*, its models first. What cannot be read is a finding as well."""
    try:
        folders = sorted(folder for folder in models.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    except OSError as error:
        yield Finding("error", str(models), f"cannot be read: {error.strerror}", "give the folder that Triton serves")
        return
    if not folders:
        yield Finding("error", str(models), "holds no model", f"immich-triton export ocr --models {models}")
    graphs: dict[str, model_tensors.Graph] = {}
    for folder in folders:
        yield from _guarded(folder.name, lambda folder=folder: _model(folder, graphs))  # type: ignore[misc]
    yield from _routes(models, graphs)
    yield from _guarded("hashes", lambda: _hashes(models))


def _guarded(where: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except (OSError, UnicodeDecodeError, ManifestError) as error:
        yield Finding("error", where, f"cannot be read: {error}", "make it readable, or copy it again")


def _model(folder: Path, graphs: dict[str, model_tensors.Graph]) -> Iterator[Finding]:
    """Look at one model; a sound ONNX model's tensors are added to *graphs*."""
    if problem := missing_files(folder):
        what, _, fix = problem.partition("; ")
        yield Finding("error", folder.name, what, fix)
        return
    try:
        config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        yield Finding("error", folder.name, f"config.pbtxt does not parse: {error}", "correct that line")
        return
    found = [*_config(folder, config)]
    if not found and config.backend == "onnxruntime":
        try:
            file = _model_file(folder, config)
            graph = graphs[folder.name] = model_tensors.read(file)
            found = [
                Finding("error", folder.name, text, "export the model again, or correct config.pbtxt")
                for text in graph.differences(config)
            ] or [*_bytes(folder, config, file)]
        except TensorError as error:
            found = [Finding("error", folder.name, str(error), "export the model again, or copy it whole")]
    yield from found or [Finding("ok", folder.name, f"{config.backend}, config and files fit each other")]


def _config(folder: Path, config: Any) -> Iterator[Finding]:
    if config.name and config.name != folder.name:
        yield Finding(
            "error", folder.name, f"config.pbtxt says that its name is {config.name}", "give folder and name one name"
        )
    if config.backend not in BACKENDS:
        text = f"backend is {config.backend or 'not stated'!r}, which the embedded Triton does not have"
        yield Finding("error", folder.name, text, f"say {' or '.join(BACKENDS)}")
    # A network computes a larger batch no faster there; a pipeline works on several requests at once.
    stated = bool(config.instance_group) and all(group.kind == group.KIND_CPU for group in config.instance_group)
    on_cpu = config.backend == "onnxruntime" and stated
    if config.max_batch_size > 1 and not config.HasField("dynamic_batching") and not on_cpu:
        text = "max_batch_size without dynamic_batching: requests are not joined"
        yield Finding("warning", folder.name, text, "add dynamic_batching { }")
    if not config.instance_group:
        text = "no instance_group: Triton starts two copies on a CPU, one on each GPU"
        yield Finding("warning", folder.name, text, "state one, with its kind")


def _bytes(folder: Path, config: Any, file: Path) -> Iterator[Finding]:
    """Say it where *file* is made for another CPU than this one."""
    on_gpu = bool(config.instance_group) and all(group.kind == group.KIND_GPU for group in config.instance_group)
    if not on_gpu and onnx_metadata.too_wide(file):
        text = (
            "multiplies bytes (int8) for which this CPU has no instruction (VNNI): the embedded Triton computes the "
            "same in floats, slower than a model of floats"
        )
        ours = folder.name.startswith("ocr_")
        fix = "immich-triton export ocr chooses what is faster here" if ours else "take a model of floats here"
        yield Finding("warning", folder.name, text, fix)


def _model_file(folder: Path, config: Any) -> Path:
    """Return the file of the newest version, which is the one that Triton serves by itself."""
    name = config.default_model_filename or "model.onnx"
    versions = [version for version in folder.iterdir() if version.name.isdecimal() and (version / name).is_file()]
    return max(versions, key=lambda version: int(version.name)) / name


def _routes(models: Path, graphs: dict[str, model_tensors.Graph]) -> Iterator[Finding]:
    routes = []
    for path in route_files(models):
        where = f"{path.parent.name}/{path.name}"
        try:
            route = read_route(path)
            TASKS[route.task].check(route)
        except RouteError as error:
            yield Finding("error", where, str(error), "export the model again")
            continue
        routes.append(route)
        found = [*_route(route, where, models, graphs)]
        names = ", ".join(route.names)
        yield from found or [Finding("ok", where, f"{route.task} {names}: models, vector size and hashes fit")]
    if not routes:
        yield Finding("warning", str(models), "no route: the gateway answers nothing", "immich-triton export ocr")
    try:
        RouteTable(tuple(routes))
    except RouteError as error:
        yield Finding("error", "routes", str(error), "remove one of the two folders")


def _route(route: Route, where: str, models: Path, graphs: dict[str, model_tensors.Graph]) -> Iterator[Finding]:
    again = "export the model again, or copy it whole"
    for pipeline in route.pipelines:
        for name in pipeline.all_models:
            if not (models / name / "config.pbtxt").is_file():
                fix = ADDED_BY_RUN if name in PIPELINES else again
                yield Finding("error", where, f"{pipeline.name} needs the model {name}, which is not here", fix)
        for key, value in pipeline.parameters.items():
            if key in ("encoder", "detector", "recognizer") and value not in pipeline.models:
                yield Finding("error", where, f"{key} is {value}, which is none of its models", again)
    for name, numbers in _vector_sizes(route, graphs):
        if numbers != route.dimension:
            text = f"says {route.dimension} numbers, {name} gives {numbers}: they would not fit the search index"
            yield Finding("error", where, text, again)
    yield from _route_hashes(route, where, models, graphs)
    if route.untrained:
        text = f"{', '.join(route.names)} has random weights, made for tests; the gateway refuses it"
        yield Finding("warning", where, text, "export real weights")


def _vector_sizes(route: Route, graphs: dict[str, model_tensors.Graph]) -> Iterator[tuple[str, int]]:
    """Yield each model of *route* that makes vectors, and their size where its file fixes it."""
    for pipeline in route.pipelines:
        maker = pipeline.parameters.get("encoder" if route.task == "clip" else "recognizer")
        graph = graphs.get(str(maker))
        if route.dimension and graph and (size := graph.vector_size()):
            yield str(maker), size


def _route_hashes(route: Route, where: str, models: Path, graphs: dict[str, model_tensors.Graph]) -> Iterator[Finding]:
    again = "one of the files was replaced or damaged: export the model again, or copy it whole"
    if route.task == "ocr":
        (pipeline,) = route.pipelines
        files = [models / name / "1/model.onnx" for name in pipeline.models]
        if files and all(file.is_file() for file in files) and sha256(*files) != route.weights_sha256:
            text = f"{' and '.join(pipeline.models)} have other contents than weights_sha256 says"
            yield Finding("error", where, text, again)
    for pipeline in route.pipelines if route.task == "clip" else ():
        encoder = str(pipeline.parameters.get("encoder"))
        if pipeline.fingerprint is None:
            yield Finding("error", where, f"{pipeline.name} has no fingerprint: it would get 503", ADDED_BY_RUN)
            continue
        record = models / encoder / weights.RECORD
        if record.is_file() and not _is_recorded(record, route, pipeline.fingerprint):
            text = f"{encoder}/{record.name} is about other weights, or another fingerprint, than the route"
            yield Finding("error", where, text, again)
        graph = graphs.get(encoder)
        if graph and graph.fingerprint is not None and graph.fingerprint != pipeline.fingerprint:
            text = f"{encoder} answers with the fingerprint {graph.fingerprint}, the route says {pipeline.fingerprint}"
            yield Finding("error", where, text, again)


def _is_recorded(record: Path, route: Route, fingerprint: int) -> bool:
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
        return bool(said["fingerprint"] == fingerprint and said["weights"]["sha256"] == route.weights_sha256)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _hashes(models: Path) -> Iterator[Finding]:
    """Compare with the hashes that a restored repository brought along, where there are any."""
    changed = changed_files(models)
    if changed is None:
        return
    for name, how in changed.items():
        edited = how == "changed" and name.endswith(("config.pbtxt", ".json", ".toml"))
        fix = "restore the archive again; after an export of your own remove models.sha256"
        yield Finding("warning" if edited else "error", name, f"{how} since the repository was restored", fix)
    if not changed:
        yield Finding("ok", "hashes", "every file is as it was archived")
