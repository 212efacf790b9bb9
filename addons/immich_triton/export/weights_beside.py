"""The weights of an exported model in a file of their own beside it, ``model.onnx.data``.

The engines map that file into memory instead of reading it, and a process lets go of what it has packed for its
kernels: inside the model the same numbers are held twice. The model names the file's SHA-256.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from immich_pipelines.onnx_metadata import WEIGHTS_FILE
from immich_triton.export import onnx_graph
from immich_triton.export.repository import sha256


def data_of(model: Path) -> Path:
    """Return the file that holds the weights of *model*, if it has one."""
    return model.with_name(f"{model.name}.data")


def size_of(model: Path) -> int:
    """Return the bytes of *model* and of its file of weights together."""
    return sum(path.stat().st_size for path in (model, data_of(model)) if path.is_file())


def put_beside(model: Path) -> None:
    """Move the weights of *model* into a file beside it, unless they are there already, and `tie` both.

    Where the model has none of 1 kB or more, nothing changes.
    """
    data = data_of(model)
    if not data.is_file():
        onnx.save_model(
            onnx.load(model), model, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name
        )
        if data.is_file():
            # onnx makes it readable for us alone; Triton may be another user.
            data.chmod(model.stat().st_mode)
    tie(model)


def tie(model: Path) -> None:
    """Have *model* name the file of weights beside it, if there is one: its fingerprint speaks for these."""
    data = data_of(model)
    if data.is_file():
        graph = onnx.load(model, load_external_data=False)
        onnx_graph.set_metadata(graph, WEIGHTS_FILE, sha256(data))
        model.write_bytes(graph.SerializeToString())
