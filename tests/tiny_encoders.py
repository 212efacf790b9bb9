"""CLIP encoders of a few kilobytes with the tensors of exported ones, for tests of everything but their weights."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import numpy_helper

from immich_triton.export.clip import repository as clip_repository
from immich_triton.export.repository import install_pipelines, new_model
from immich_triton.ml.route_file import Route, write_route
from immich_triton.triton.pipelines import Pipeline

DIMENSION: Final = 512
NAME: Final = "ViT-B-32__openai"
"""What the route of `see_a` and `read_a` answers for."""
IMAGE_SIZE: Final = 32
WEIGHTS: Final = "a1" * 32
"""What the route and the records say the SHA-256 of the weights is."""

_GRAPH: Final = """
<ir_version: 8, opset_import: ["" : 17]>
encoder ({input}) => (float[B, {dimension}] EMBEDDING, int64[B, 1] FINGERPRINT)
<int64 fingerprint = {{{fingerprint}}}, int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[2] flat = {{0, -1}},
 float limit = {{-1.47}}, float nan = {{0}}>
{{
    numbers = Cast<to = 1>({name})
    rows = Reshape(numbers, flat)
    features = MatMul(rows, weights)
    lengths = ReduceL2<axes = [1], keepdims = 1>(features)
    normalised = Div(features, lengths)
    highest = ReduceMax<axes = [1], keepdims = 1>(rows)
    black = Less(highest, limit)
    EMBEDDING = Where(black, nan, normalised)
    shape = Shape({name})
    batch = Slice(shape, zero, one)
    target = Concat<axis = 0>(batch, one)
    FINGERPRINT = Expand(fingerprint, target)
}}
"""


@dataclass(frozen=True)
class TinyEncoder:
    """An encoder of the repository ``models``: a random projection. An image that is black all over gives NaN."""

    models: Path
    name: str
    seed: int
    visual: bool
    dimension: int = DIMENSION

    @property
    def input(self) -> str:
        """The name of its input tensor."""
        return "IMAGE" if self.visual else "TOKENS"

    def write(self) -> None:
        """Put it into the repository, in the place of one of that name, whose route it takes over."""
        shape = (3, IMAGE_SIZE, IMAGE_SIZE) if self.visual else (52,)
        random = np.random.default_rng(self.seed)
        weights = random.normal(size=(int(np.prod(shape)), self.dimension)).astype(np.float32)
        kind = "float" if self.visual else "int64"
        proto = onnx.parser.parse_model(
            _GRAPH.format(
                input=f"{kind}[B, {', '.join(map(str, shape))}] {self.input}",
                name=self.input,
                dimension=self.dimension,
                fingerprint=self.seed,
            )
        )
        for tensor in proto.graph.initializer:
            if tensor.name == "nan":
                tensor.CopyFrom(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
        proto.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
        onnx.checker.check_model(proto)
        with new_model(self.models, self.name) as folder:
            onnx.save_model(proto, folder / "1/model.onnx")
            (folder / "export.json").write_text(self._record())
            if (route_file := self.models / self.name / "route.toml").exists():
                shutil.copy(route_file, folder)
            if not self.visual:
                (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
            (folder / "config.pbtxt").write_text(
                f'# test\nname: "{self.name}"\nbackend: "onnxruntime"\nmax_batch_size: 8\ndynamic_batching {{ }}\n'
                "instance_group [ { count: 1, kind: KIND_CPU } ]\n"
            )

    def write_record(self) -> None:
        """Say that it is what the folder holds, and leave the model there as it is: nobody reloads that by itself."""
        path = self.models / self.name / "export.json"
        new = path.with_name("new.json")
        new.write_text(self._record())
        new.replace(path)

    def _record(self) -> str:
        return json.dumps({"image_size": IMAGE_SIZE, "fingerprint": self.seed, "weights": {"sha256": WEIGHTS}})

    def expected(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return what it gives for a batch, computed by ONNX Runtime in this process."""
        runtime = importlib.import_module("onnxruntime")
        session = runtime.InferenceSession(str(self.models / self.name / "1/model.onnx"))
        result: npt.NDArray[np.float32] = session.run(["EMBEDDING"], {self.input: inputs})[0]
        return result


VOCABULARY: Final = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "一",
    "只",
    "猫",
    "狗",
    "a",
    "b",
    "##a",
    "##b",
    "café",
    ".",
    "!",
]


def repository(models: Path, pairs: str = "ab") -> dict[str, TinyEncoder]:
    """Write the pipelines into *models*, and for each letter of *pairs* an image and a text encoder.

    Returns the encoders by name. `NAME` is routed to the first pair.
    """
    install_pipelines(models, clip_repository.PIPELINES)
    encoders = {
        name: TinyEncoder(models, name, seed, visual)
        for name, seed, visual in (
            ("see_a", 11, True),
            ("see_b", 12, True),
            ("read_a", 13, False),
            ("read_b", 14, False),
        )
        if name[-1] in pairs
    }
    for encoder in encoders.values():
        encoder.write()
    route("see_a", "read_a", models)
    return encoders


def route(
    visual: str, textual: str, models: Path, weights_sha256: str = WEIGHTS, *, routes: Path | None = None
) -> None:
    """Route `NAME` to a pair of encoders of *models*; the file goes to *routes*, if not to *models* themselves."""
    pipelines = [
        Pipeline("clip_image", ["visual"], [visual], {"encoder": visual}, _fingerprint(models / visual)),
        Pipeline("clip_text", ["textual"], [textual], {"encoder": textual}, _fingerprint(models / textual)),
    ]
    folder = (routes or models) / visual
    folder.mkdir(parents=True, exist_ok=True)
    write_route(folder, Route("clip", [NAME], pipelines, weights_sha256, DIMENSION))


def _fingerprint(encoder: Path) -> int:
    return int(json.loads((encoder / "export.json").read_text())["fingerprint"])
