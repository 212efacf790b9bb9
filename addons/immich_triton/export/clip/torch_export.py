"""Runs in the export environment (Python 3.11 with torch): a Chinese-CLIP model to two proved ONNX files.

``python -m immich_triton.export.clip.torch_export JOB.json``; `immich_triton.export.clip.job.Job` says what the file
holds. What comes out lies in the job's folder: ``visual/1/model.onnx``, ``textual/1/model.onnx``, ``textual/vocab.txt``
and ``report.json``. Exit status 3 (`NOT_EQUAL`): the ONNX models do not equal the original.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import cn_clip.clip
import onnx
import torch
from cn_clip.clip.model import LayerNorm
from cn_clip.clip.utils import create_model

from immich_triton.core import versions
from immich_triton.export.clip import parity as clip_parity
from immich_triton.export.clip.job import NOT_EQUAL, Job
from immich_triton.export.clip.models import CLIP_MODELS, CONTEXT_LENGTH, ClipModel

OPSET: Final = 17
"""The first with LayerNormalization as one operator; Triton's C++ backend has known it since 2022."""
EXTERNAL_FROM: Final = 2_000_000_000
"""Bytes of weights from which they go into a file beside the model: a protobuf message cannot exceed 2 GiB."""


class Encoder(torch.nn.Module):  # type: ignore[misc]  # torch is not in the environment that checks types
    """One tower with L2 normalisation, which the original leaves to its caller.

    Gives the embeddings float32 [N, D] of length 1, and the fingerprint int64 [N, 1]. Normalised in float32 whatever
    the tower computes in: the squares of a half-precision vector may overflow.
    """

    def __init__(self, model: Any, fingerprint: int, *, visual: bool) -> None:
        super().__init__()
        self.model = model
        self.encode = model.encode_image if visual else model.encode_text
        self.register_buffer("fingerprint", torch.tensor([[fingerprint]], dtype=torch.int64))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode a batch: images float32 [N, 3, S, S], or tokens int64 [N, 52]."""
        features = self.encode(inputs).float()
        normalised = features / features.norm(dim=-1, keepdim=True)
        return normalised, self.fingerprint.expand(inputs.shape[0], 1)


def build(model: ClipModel, weights: Path | None, seed: int) -> Any:
    """Return cn_clip's own model in float32 and evaluation mode, with the checkpoint *weights* or random ones.

    Raises `ValueError` when the file is no checkpoint of this model.
    """
    checkpoint = None
    if weights:
        # weights_only: a checkpoint is a pickle, and this way it can hold data but run no code.
        try:
            checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:
            # torch raises what its unpickler and its zip reader raise.
            raise ValueError(f"{weights} is no Chinese-CLIP checkpoint: {str(error)[:200]}") from error
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise ValueError(f"{weights} is no Chinese-CLIP checkpoint: it has no state_dict")
    torch.manual_seed(seed)
    try:
        # It prints its whole configuration.
        with contextlib.redirect_stdout(io.StringIO()):
            result = create_model(model.towers, checkpoint)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not hold a {model.name}: {str(error)[:400]}") from error
    if weights is None:
        _wake(result)
    return result.float().eval()


def _wake(model: Any) -> None:
    # RN50 starts with zeros at the end of each residual branch: untouched, no convolution in it would be tested.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and not module.weight.any():
            torch.nn.init.constant_(module.weight, 0.5)


def _halve(model: Any) -> None:
    """Go to half precision as cn_clip does, whose own layer normalisation computes in float32.

    Unlike its ``convert_weights`` the batch normalisation too: ONNX fuses it with a convolution in half precision.
    """
    model.half()
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.float()


def state_hash(model: Any) -> str:
    """Return a SHA-256 over all weights: what identifies random ones, which have no file."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def export(encoder: Encoder, sample: torch.Tensor, name: str, path: Path, *, external_data: bool) -> None:
    """Write *encoder* to *path* with a dynamic batch axis; *sample* is an input of batch 2, *name* the input's."""
    path.parent.mkdir(parents=True)
    # torch scatters a model over 2 GiB into one file per weight: give it a folder to do so, and gather them after.
    scratch = path.parent / "scratch"
    scratch.mkdir()
    dynamic = {tensor: {0: "batch"} for tensor in (name, "EMBEDDING", "FINGERPRINT")}
    with warnings.catch_warnings():
        # The exporter of 2.9 and later gives up the dynamic batch axis of these models; this one keeps it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        torch.onnx.export(
            encoder,
            (sample,),
            str(scratch / "model.onnx"),
            dynamo=False,
            opset_version=OPSET,
            input_names=[name],
            output_names=["EMBEDDING", "FINGERPRINT"],
            dynamic_axes=dynamic,
        )
    # The exporter may leave the model in training mode.
    encoder.eval()
    proto = onnx.load(scratch / "model.onnx")
    proto.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 1
    shutil.rmtree(scratch)
    # Not proto.ByteSize(): that fails for the models it is asked about.
    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    if external_data or size > EXTERNAL_FROM:
        onnx.save_model(
            proto, path, save_as_external_data=True, all_tensors_to_one_file=True, location=f"{path.name}.data"
        )
        # onnx makes it readable for us alone; Triton may be another user.
        path.with_name(f"{path.name}.data").chmod(path.stat().st_mode)
    else:
        onnx.save_model(proto, path)
    # By path: the checker reads external data itself.
    onnx.checker.check_model(str(path))


def run(job: Job) -> bool:
    """Do *job*; return whether the ONNX models equal the original."""
    spec = CLIP_MODELS[job.model]
    folder = Path(job.folder)
    weights = Path(job.weights) if job.weights else None
    print(f"loading {spec.name} in PyTorch", flush=True)
    model = build(spec, weights, job.seed)
    weights_sha256 = None if weights else state_hash(model)
    # The reference is computed first: half precision replaces the weights in place.
    print("computing the reference embeddings", flush=True)
    reference = clip_parity.reference(model, spec.image_size)
    if job.precision == "fp16":
        _halve(model)
    print(f"exporting ONNX, {job.precision}", flush=True)
    images = torch.zeros(2, 3, spec.image_size, spec.image_size)
    tokens = cn_clip.clip.tokenize(["一", "二"])
    with torch.no_grad():
        export(
            Encoder(model, job.fingerprint, visual=True),
            images,
            "IMAGE",
            folder / "visual/1/model.onnx",
            external_data=job.external_data or job.external_visual,
        )
        export(
            Encoder(model, job.fingerprint, visual=False),
            tokens,
            "TOKENS",
            folder / "textual/1/model.onnx",
            external_data=job.external_data,
        )
    del model
    vocabulary = Path(cn_clip.clip.__file__).parent / "vocab.txt"
    shutil.copyfile(vocabulary, folder / "textual/vocab.txt")
    print("comparing with the original", flush=True)
    parity = clip_parity.measure(reference, folder, spec.image_size, job.precision)
    report = {
        "weights_sha256": weights_sha256,
        "context_length": CONTEXT_LENGTH,
        "opset": OPSET,
        "versions": {
            **{name: versions.of(name) for name in ("torch", "torchvision", "cn-clip", "onnx", "pillow")},
            "onnxruntime": versions.of_onnx_runtime(),
            "python": sys.version.split()[0],
        },
        "parity": parity,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    return bool(parity["passed"])


def main() -> int:
    """Run the program."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        return 0 if run(job) else NOT_EQUAL
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
