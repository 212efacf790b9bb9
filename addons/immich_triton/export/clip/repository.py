"""An exported Chinese-CLIP model as folders of the Triton model repository."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from immich_pipelines import shapes as shape_table
from immich_triton.export import weights_beside
from immich_triton.export.clip.models import CONTEXT_LENGTH, ClipModel
from immich_triton.export.gpu_parameters import COMMENT, gpu_parameters, lines
from immich_triton.export.repository import install_pipelines, new_model
from immich_triton.immich.clip_names import dimension_of, names_of
from immich_triton.immich.model_names import clean_name
from immich_triton.ml.route_file import Route, RouteError, read_route, route_files, write_route
from immich_triton.triton.pipelines import Pipeline
from immich_triton.triton.weights import RECORD

PIPELINES: Final = ("clip_image", "clip_text")
_KINDS: Final = {False: "KIND_CPU", True: "KIND_GPU"}
_CONFIG: Final = """\
# {model}, {tower} encoder, {precision}. Written by immich-triton export clip; export.json has its origin and its proof.
#
# {about}
# EMBEDDING    length 1: the L2 normalisation is part of the graph
# FINGERPRINT  which weights computed it; the same number stands in export.json
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [
  {{ name: "{input}", data_type: {type}, dims: [ {dims} ] }}
]
output [
  {{ name: "EMBEDDING", data_type: TYPE_FP32, dims: [ {dimension} ] }},
  {{ name: "FINGERPRINT", data_type: TYPE_INT64, dims: [ 1 ] }}
]
# No delay: what arrives while a batch is being computed forms the next one.
dynamic_batching {{ }}
# One copy of the weights; on a CPU it uses all cores by itself.
instance_group [ {{ count: 1, kind: {kind} }} ]
{parameters}"""
_CPU: Final = """\
# A spinning thread of one model takes a core from another one (measured fourfold on two cores).
parameters { key: "allow_spinning", value: { string_value: "0" } }
"""
_OPENVINO: Final = """\
# Read by the embedded backend alone: OpenVINO takes 0.8 of ONNX Runtime's time. One image at a time, since on a CPU a
# batch saves nothing, and weights packed for one size take half the memory.
parameters {{ key: "embedded_accelerator", value: {{ string_value: "openvino" }} }}
parameters {{ key: "shapes", value: {{ string_value: "{shapes}" }} }}
"""
_NICE: Final = """\
# Indexing yields to search queries: a person is waiting for those.
parameters { key: "nice", value: { string_value: "10" } }
"""


class ClipNameError(ValueError):
    """The model cannot answer under this Immich name; the text lists those that fit."""


def check_names(model: ClipModel, names: Sequence[str], models: Path) -> list[str]:
    """Return *names* in their clean form. Raises `ClipNameError` when one cannot be used."""
    result = list(dict.fromkeys(clean_name(name) for name in names))
    others = list(_routes(models, without=model.visual))
    for name in result:
        size = dimension_of(name)
        if size != model.dimension:
            expects = f"expects {size} numbers under that name" if size else "does not know that name"
            fitting = "\n    ".join(names_of(model.dimension))
            raise ClipNameError(
                f"{model.name} gives vectors of {model.dimension} numbers, but Immich {expects} ({name}). "
                f"Names that fit:\n    {fitting}"
            )
        for folder, route in others:
            if route.task == "clip" and name in map(clean_name, route.names):
                raise ClipNameError(
                    f"{folder} already answers for {name}. Remove that folder, or choose another name (--as)."
                )
    return result


def _routes(models: Path, without: str) -> Iterator[tuple[Path, Route]]:
    """Yield the routes of the other folders. One that is not valid answers nobody; the gateway says so at its start."""
    for path in route_files(models):
        if path.parent.name != without:
            with contextlib.suppress(RouteError):
                yield path.parent, read_route(path)


def exported_precision(models: Path, model: ClipModel) -> str | None:
    """Return the precision of the weights of *model* that the repository *models* holds; None when it holds none."""
    try:
        record = json.loads((models / model.visual / RECORD).read_text(encoding="utf-8"))
        return str(record["precision"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write(
    models: Path,
    model: ClipModel,
    exported: Path,
    names: Sequence[str],
    record: Mapping[str, Any],
    *,
    gpu: bool = False,
) -> None:
    """Put *exported* (with ``visual/`` and ``textual/``) and the route for *names* into the repository *models*.

    *record* becomes ``export.json`` of both encoders; *gpu* places them on the GPU. The image encoder carries the route
    and comes last: no route before both are there.
    """
    precision, fingerprint = str(record["precision"]), int(record["fingerprint"])
    install_pipelines(models, PIPELINES)
    with new_model(models, model.visual) as visual, new_model(models, model.textual) as textual:
        for folder, kind in ((visual, "visual"), (textual, "textual")):
            # The version folder is there already, empty.
            shutil.copytree(exported / kind, folder, dirs_exist_ok=True)
            weights_beside.put_beside(folder / "1/model.onnx")
            (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (visual / "config.pbtxt").write_text(
            _visual_config(model, precision, _on_gpu("clip_visual", model, visual) if gpu else ""), encoding="utf-8"
        )
        (textual / "config.pbtxt").write_text(
            _textual_config(model, precision, _on_gpu("clip_textual", model, textual) if gpu else ""), encoding="utf-8"
        )
        write_route(
            visual,
            Route(
                task="clip",
                names=names,
                pipelines=[
                    Pipeline("clip_image", ["visual"], [model.visual], {"encoder": model.visual}, fingerprint),
                    Pipeline("clip_text", ["textual"], [model.textual], {"encoder": model.textual}, fingerprint),
                ],
                weights_sha256=record["weights"]["sha256"],
                dimension=model.dimension,
                untrained=record["untrained"],
            ),
        )


def _on_gpu(kind: str, model: ClipModel, folder: Path) -> str:
    """Return the parameters of the encoder in *folder* on a GPU."""
    shapes = (
        shape_table.of_batches(shape_table.CLIP_VISUAL, (3, model.image_size, model.image_size))
        if kind == "clip_visual"
        else shape_table.of_batches(shape_table.CLIP_TEXTUAL, (CONTEXT_LENGTH,))
    )
    # Large weights lie in a file beside the model.
    weights = sum(path.stat().st_size for path in (folder / "1").iterdir())
    return COMMENT + lines(gpu_parameters(kind, shapes, weights))


def _visual_config(model: ClipModel, precision: str, on_gpu: str) -> str:
    one = shape_table.of_batches((1,), (3, model.image_size, model.image_size))
    return _CONFIG.format(
        model=model.name,
        tower="image",
        precision=precision,
        about="IMAGE        RGB, planes first, as cn_clip.clip.image_transform makes it (about -1.8 to 2.2)",
        name=model.visual,
        batch=8,
        input="IMAGE",
        type="TYPE_FP32",
        dims=f"3, {model.image_size}, {model.image_size}",
        dimension=model.dimension,
        kind=_KINDS[bool(on_gpu)],
        parameters=on_gpu or _OPENVINO.format(shapes=shape_table.text(one)) + _NICE,
    )


def _textual_config(model: ClipModel, precision: str, on_gpu: str) -> str:
    return _CONFIG.format(
        model=model.name,
        tower="text",
        precision=precision,
        about="TOKENS       as cn_clip.clip.tokenize makes them with vocab.txt beside this file",
        name=model.textual,
        batch=32,
        input="TOKENS",
        type="TYPE_INT64",
        dims=CONTEXT_LENGTH,
        dimension=model.dimension,
        kind=_KINDS[bool(on_gpu)],
        parameters=on_gpu or _CPU,
    )
