"""Puts the two models of an InsightFace pack, and their route, into a Triton model repository."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from immich_pipelines import faces_detection, faces_recognition
from immich_pipelines import shapes as shape_table
from immich_pipelines.shapes import Shape
from immich_triton.core import versions
from immich_triton.export import weights_beside
from immich_triton.export.faces import graphs as faces_graphs
from immich_triton.export.faces.check import Differences, Originals, compare
from immich_triton.export.gpu_parameters import COMMENT, gpu_parameters, lines
from immich_triton.export.repository import install_pipelines, new_model, sha256
from immich_triton.ml.route_file import Route, write_route
from immich_triton.triton.pipelines import Pipeline

_CONFIG = """\
# {title}, made by immich-triton export faces from {file} of InsightFace's {pack}.
# pixels: RGB, 0 to 255, rows from the top, channels last; the normalisation is part of the model.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{ name: "pixels", data_type: TYPE_UINT8, dims: [ {side}, {side}, 3 ] }}
]
output [
{outputs}
]
dynamic_batching {{ }}
# {why}
instance_group [ {{ count: {count}, kind: {kind} }} ]
{parameters}"""
_CPU = """\
# Read by the embedded backend alone: OpenVINO is up to 1.4 times (SCRFD) and twice (ArcFace) as fast as ONNX Runtime,
# and indexing yields to search queries, for which a person is waiting.
parameters { key: "embedded_accelerator", value: { string_value: "openvino" } }
parameters { key: "nice", value: { string_value: "10" } }
"""
_ONE_AT_A_TIME = """\
# One image at a time: a batch saves nothing on a CPU, and made for one shape OpenVINO takes 5 % less for it.
parameters {{ key: "shapes", value: {{ string_value: "{shapes}" }} }}
"""
_ONE_PER_GPU = "One copy on every GPU."


@dataclass(frozen=True)
class _Part:
    """One of the two models: what its config and record say."""

    name: str
    title: str
    original: Path
    side: int
    max_batch: int
    outputs: Mapping[str, Sequence[int]]
    shapes: Sequence[Shape]
    """On a GPU."""
    cpu_shapes: Sequence[Shape]
    """On a CPU; none where any batch is computed together."""
    kind: str
    """As `gpu_parameters` calls it."""
    copies: int
    """On a CPU; on a GPU there is one."""
    why: str
    """The reason for so many, for the reader of the config."""


def export(
    pack: str,
    detector: Path,
    recognizer: Path,
    models: Path,
    names: Sequence[str],
    source: Mapping[str, str],
    *,
    gpu: bool = False,
) -> Differences:
    """Write ``face_det_<pack>``, ``face_rec_<pack>`` with the route for the Immich *names*, and the pipeline.

    *detector* and *recognizer* are the pack's original ONNX files; *source* says where they come from and is stored in
    ``export.json`` beside what was measured; *gpu* places both models on every GPU. Raises `GraphError` or
    `CheckError`, and writes nothing then.
    """
    originals = Originals(detector, recognizer)
    mean, std = originals.recognizer.input_mean, originals.recognizer.input_std
    detection = _Part(
        f"face_det_{pack}",
        "SCRFD face detection",
        detector,
        faces_detection.SIDE,
        faces_detection.MAX_BATCH,
        faces_detection.OUTPUTS,
        shape_table.of_batches(shape_table.FACE_DETECTOR, (faces_detection.SIDE, faces_detection.SIDE, 3)),
        shape_table.of_batches((1,), (faces_detection.SIDE, faces_detection.SIDE, 3)),
        "face_detector",
        copies=2,
        why="A copy for each process of the pipeline: while one waits for a layer's slower thread, the other has work.",
    )
    recognition = _Part(
        f"face_rec_{pack}",
        "ArcFace face recognition",
        recognizer,
        faces_recognition.SIDE,
        faces_recognition.MAX_BATCH,
        {faces_recognition.OUTPUT: (faces_recognition.DIMENSION,)},
        shape_table.of_batches(shape_table.FACE_RECOGNIZER, (faces_recognition.SIDE, faces_recognition.SIDE, 3)),
        (),
        "face_recognizer",
        copies=1,
        why="One copy: the faces of all images that wait go through it together; on a CPU it uses all cores by itself.",
    )
    # The route is in the recogniser's folder, which appears last: no route before both models are there.
    with new_model(models, recognition.name) as rec_folder, new_model(models, detection.name) as det_folder:
        det_file, rec_file = det_folder / "1/model.onnx", rec_folder / "1/model.onnx"
        onnx.save(faces_graphs.detector(onnx.load(detector)), det_file)
        onnx.save(faces_graphs.recognizer(onnx.load(recognizer), mean=mean, std=std), rec_file)
        differences = compare(originals, det_file, rec_file)
        for folder, part in ((det_folder, detection), (rec_folder, recognition)):
            weights_beside.put_beside(folder / "1/model.onnx")
            weights = weights_beside.size_of(folder / "1/model.onnx")
            (folder / "config.pbtxt").write_text(_config(pack, part, weights, gpu=gpu), encoding="utf-8")
            record = {"pack": pack, **source, **_record(part, differences)}
            (folder / "export.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_route(rec_folder, _route(names, detection, recognition))
    install_pipelines(models, ["faces"])
    return differences


def _route(names: Sequence[str], detection: _Part, recognition: _Part) -> Route:
    pipeline = Pipeline(
        name="faces",
        types=["detection", "recognition"],
        models=[detection.name, recognition.name],
        parameters={"detector": detection.name, "recognizer": recognition.name},
    )
    return Route(
        task="facial-recognition",
        names=names,
        pipelines=[pipeline],
        weights_sha256=sha256(detection.original, recognition.original),
        dimension=faces_recognition.DIMENSION,
    )


def _record(part: _Part, differences: Differences) -> dict[str, object]:
    return {
        "file": part.original.name,
        "file_sha256": sha256(part.original),
        "checked_with": f"insightface {versions.of('insightface')}, onnxruntime {versions.of_onnx_runtime()}",
        "largest_differences": differences.as_dict(),
    }


def _config(pack: str, part: _Part, weights: int, *, gpu: bool) -> str:
    outputs = ",\n".join(
        f'  {{ name: "{name}", data_type: TYPE_FP32, dims: [ {", ".join(map(str, shape))} ] }}'
        for name, shape in part.outputs.items()
    )
    on_cpu = _CPU + (_ONE_AT_A_TIME.format(shapes=shape_table.text(part.cpu_shapes)) if part.cpu_shapes else "")
    return _CONFIG.format(
        title=part.title,
        file=part.original.name,
        pack=pack,
        name=part.name,
        max_batch=part.max_batch,
        side=part.side,
        outputs=outputs,
        why=_ONE_PER_GPU if gpu else part.why,
        count=1 if gpu else part.copies,
        kind="KIND_GPU" if gpu else "KIND_CPU",
        parameters=COMMENT + lines(gpu_parameters(part.kind, part.shapes, weights)) if gpu else on_cpu,
    )
