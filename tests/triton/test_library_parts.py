"""What the pipelines take of libraries without their packages, and what each process is spared by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import onnx
import pytest
from places import PROJECT
from tiny_ocr import recognizer

from immich_pipelines.onnx_metadata import metadata_props
from immich_pipelines.parts import instead_of, part

HEAVY = {"insightface", "onnx", "onnxruntime", "rapidocr_onnxruntime", "scipy", "sklearn", "skimage"}


def imported_by(*modules: str) -> set[str]:
    """Return which heavy packages a new process has, that has imported *modules* of the pipelines."""
    code = f"import sys, {', '.join(modules)}; print(*({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT / "triton_backends", capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("modules", "needed"),
    [
        (
            ["immich_pipelines.ocr_detection", "immich_pipelines.ocr_recognition", "immich_pipelines.onnx_metadata"],
            set(),
        ),
        (["immich_pipelines.clip_image", "immich_pipelines.clip_text"], set()),
        (["immich_pipelines.faces_detection", "immich_pipelines.faces_recognition"], set()),
    ],
)
def test_a_pipeline_imports_only_what_it_uses(modules: list[str], needed: set[str]) -> None:
    assert imported_by(*modules) == needed


FACE = """
import sys
import numpy as np
from immich_pipelines import faces_detection, faces_recognition

class Net:
    def run(self, names, feed):
        return [np.zeros((1, *faces_detection.OUTPUTS[name]), np.float32) for name in names]

(found,) = faces_detection.Detector(Net()).detect([np.zeros((90, 120, 3), np.uint8)], [faces_detection.Bounds(0.5)])
face = faces_recognition.align(np.zeros((300, 300, 3), np.uint8), faces_recognition.face_align.arcface_dst + 20)
print(len(found), face.shape, *(HEAVY & sys.modules.keys()))
"""


def test_a_face_that_is_found_and_aligned_brings_nothing_more() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FACE.replace("HEAVY", repr(HEAVY))],
        cwd=PROJECT / "triton_backends",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0 (112, 112, 3)\n"


def test_what_stands_instead_of_a_package_is_gone_afterwards() -> None:
    import xml.dom.minidom as real

    with instead_of({"xml": ModuleType("xml")}), pytest.raises(ImportError):
        import xml.etree  # noqa: F401
    assert sys.modules["xml.dom.minidom"] is real
    assert sys.modules["xml"].dom.minidom is real


def test_a_part_is_the_librarys_own_code() -> None:
    ours = part("rapidocr_onnxruntime.ch_ppocr_rec.utils")
    from rapidocr_onnxruntime.ch_ppocr_rec import utils

    assert ours.__file__ == utils.__file__
    assert part("rapidocr_onnxruntime.ch_ppocr_rec.utils") is ours


@pytest.mark.parametrize("first", ["part", "package"])
def test_whoever_imports_the_package_gets_the_whole_of_it(first: str) -> None:
    steps = {
        "part": "part('insightface.model_zoo.scrfd').SCRFD",
        "package": "import insightface; insightface.model_zoo.scrfd.SCRFD; insightface.app.FaceAnalysis",
    }
    order = [steps[first], *(step for name, step in steps.items() if name != first), steps["package"]]
    code = "; ".join(["from immich_pipelines.parts import part", *order])
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=PROJECT / "triton_backends", check=True)


def test_what_is_not_there_is_an_import_error() -> None:
    for name in ("nowhere.at.all", "rapidocr_onnxruntime.nowhere.at", "rapidocr_onnxruntime.nowhere"):
        with pytest.raises(ModuleNotFoundError, match="nowhere"):
            part(name)


def test_the_metadata_is_what_onnx_reads(tmp_path: Path) -> None:
    model = recognizer()
    texts = {"character": "一\n二\n三" * 10_000, "empty": "", "é": "ü\0"}
    for key, value in texts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save_model(model, tmp_path / "model.onnx")
    assert metadata_props(tmp_path / "model.onnx") == texts


@pytest.mark.parametrize("content", [b"no ONNX file", b"\x72\xff\xff\x01", b"\x72", b"\xff" * 20])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="no ONNX file"):
        metadata_props(tmp_path / "model.onnx")
