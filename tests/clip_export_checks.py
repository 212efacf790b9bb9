"""Runs in the export environment: checks of the exporter on models small enough to export many of them.

``clip_export_checks.py FOLDER``, run by ``clip_small.py``. Leaves ``results.json`` in the folder, on which
``test_export_clip.py`` asserts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cn_clip.clip.utils
import numpy as np
import onnx
import torch

from immich_triton.export.clip import parity as clip_parity
from immich_triton.export.clip import torch_export as clip_torch
from immich_triton.export.clip.job import Job
from immich_triton.export.clip.models import CLIP_MODELS


def main() -> None:
    """Run the program; the argument is an empty folder."""
    base = Path(sys.argv[1])
    results: dict[str, Any] = {}
    for name in ("RN50", "ViT-B-16"):
        for precision in ("fp32", "fp16"):
            results[f"{name} {precision}"] = export(base, Job(name, "", precision, 12345))
    results["external"] = export(base, Job("ViT-B-16", "", "fp32", 2**31 - 1, external_data=True))
    results["spoilt"] = spoilt(base)
    results["checkpoint"] = checkpoints(base)
    results["seeds"] = [clip_torch.state_hash(clip_torch.build(SPEC, None, seed)) for seed in (1, 1, 2)]
    (base / "results.json").write_text(json.dumps(results))


SPEC: Final = CLIP_MODELS["ViT-B-16"]


def export(base: Path, job: Job) -> dict[str, Any]:
    """Do a job, and describe the files that it made."""
    folder = base / f"{job.model}-{job.precision}-{job.external_data}"
    folder.mkdir()
    passed = clip_torch.run(replace(job, folder=str(folder)))
    graph = onnx.load(folder / "visual/1/model.onnx", load_external_data=False).graph
    return {
        "passed": passed,
        "folder": folder.name,
        "parity": json.loads((folder / "report.json").read_text())["parity"],
        "files": sorted(path.name for path in (folder / "visual/1").iterdir()),
        "input": shape(graph.input[0]),
        "outputs": {output.name: shape(output) for output in graph.output},
        "types": sorted({onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.initializer}),
    }


def shape(value: Any) -> list[int | str]:
    """Return the dimensions of a graph's input or output: numbers, or the name of a dynamic one."""
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def spoilt(base: Path) -> dict[str, bool]:
    """Does the proof notice: one embedding wrong, one NaN, a pixel off by a level, a text with one token changed?"""
    folder = base / "ViT-B-16-fp32-False"
    torch.manual_seed(0)
    right = clip_parity.reference(clip_torch.build(SPEC, None, 0), SPEC.image_size)

    def passes(change: Callable[[clip_parity.Reference], clip_parity.Reference]) -> bool:
        return bool(clip_parity.measure(change(right), folder, SPEC.image_size, "fp32")["passed"])

    def changed(array: Any, index: tuple[int, ...], value: float) -> Any:
        copy = array.copy()
        copy[index] = value
        return copy

    return {
        "nothing": passes(lambda reference: reference),
        "image embedding": passes(
            lambda reference: replace(reference, image_embeddings=changed(reference.image_embeddings, (3, 0), 0.5))
        ),
        "text embedding": passes(
            lambda reference: replace(reference, text_embeddings=np.roll(reference.text_embeddings, 1, axis=1))
        ),
        "nan": passes(
            lambda reference: replace(reference, text_embeddings=changed(reference.text_embeddings, (5, 1), np.nan))
        ),
        "pixel": passes(lambda reference: replace(reference, images=changed(reference.images, (0, 0, 9, 9), 0.123))),
        "token": passes(lambda reference: replace(reference, tokens=changed(reference.tokens, (0, 2), 4242))),
    }


def checkpoints(base: Path) -> dict[str, Any]:
    """Are weights read from a file the same as before, and files that are no checkpoint refused with a reason?"""
    model = clip_torch.build(SPEC, None, 3)
    good, other, empty, text = (base / f"{name}.pt" for name in ("good", "other", "empty", "text"))
    torch.save({"state_dict": model.state_dict(), "epoch": 1, "name": "test"}, good)
    torch.save({"state_dict": cn_clip.clip.utils.create_model("RN50@x").state_dict()}, other)
    torch.save({"epoch": 1}, empty)
    text.write_text("no checkpoint at all")
    refused = {}
    for path in (other, empty, text):
        try:
            clip_torch.build(SPEC, path, 0)
        except ValueError as error:
            refused[path.stem] = str(error)
    before = model.state_dict()
    read = clip_torch.build(SPEC, good, 0).state_dict()
    return {
        "largest_difference": max(float((value - before[name]).abs().max()) for name, value in read.items()),
        "refused": refused,
    }


if __name__ == "__main__":
    main()
