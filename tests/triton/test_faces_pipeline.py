"""The ``faces`` pipeline in the real embedded Triton, on real nets; what it computes is in test_faces_parity.py."""

from __future__ import annotations

import concurrent.futures
import json
import re
from pathlib import Path
from typing import Any

import face_standins
import numpy as np
import onnx
import pytest
import requests
import tritonclient.http
from embedded_triton import TritonServer
from triton.counters import settled, settles
from tritonclient.utils import InferenceServerException

from immich_pipelines.decode import decode_rgb
from immich_triton.export.faces.check import Originals, cosine

IMAGES = Path(__file__).resolve().parents[1] / "data" / "images"
MODELS = {"detector": "face_det_standin", "recognizer": "face_rec_standin"}
OUTPUTS = ("BOXES", "SCORES", "EMBEDDINGS", "LANDMARKS", "IMAGE_SIZE")


@pytest.fixture(scope="module")
def server(face_triton: TritonServer) -> TritonServer:
    return face_triton


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    folder = tmp_path_factory.mktemp("originals")
    onnx.save(face_standins.detector(), folder / "detector.onnx")
    onnx.save(face_standins.recognizer(), folder / "recognizer.onnx")
    return Originals(folder / "detector.onnx", folder / "recognizer.onnx")


def analyse(server: TritonServer, image: bytes, **parameters: str | int | bool) -> dict[str, Any]:
    """Ask the pipeline; every output without its leading 1."""
    given = tritonclient.http.InferInput("IMAGE", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[image]], dtype=np.object_))
    with tritonclient.http.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=120) as client:
        result = client.infer("faces", [given], parameters={**MODELS, "min_score": "0.7", **parameters})
    return {name: result.as_numpy(name)[0] for name in OUTPUTS}


def executions(server: TritonServer, model: str) -> int:
    """How often the model ran; a batch counts once."""
    metrics = requests.get(f"{server.metrics_url}/metrics", timeout=10).text
    values = re.findall(rf'^nv_inference_exec_count{{model="{model}".*}} (\d+)', metrics, re.MULTILINE)
    return sum(map(int, values))


def test_a_group_photo_equals_insightface(server: TritonServer, originals: Originals) -> None:
    image = face_standins.solvay().read_bytes()
    expected = originals.analyse(decode_rgb(image), 0.7)
    before = settled(lambda: executions(server, "face_rec_standin"))
    found = analyse(server, image)
    assert settles(lambda: executions(server, "face_rec_standin"), before + 1)
    assert len(found["BOXES"]) == len(expected) == 29
    assert found["IMAGE_SIZE"].tolist() == [2171, 3000]
    # OpenVINO computes here, ONNX Runtime there: a coordinate just at .5 may be rounded the other way.
    assert np.abs(found["BOXES"] - [face.bbox.round() for face in expected]).max() <= 1
    assert np.abs(found["LANDMARKS"] - [face.kps for face in expected]).max() < 0.1
    assert np.abs(found["SCORES"] - [face.det_score for face in expected]).max() <= 1e-3
    cosines = [cosine(ours, face.embedding) for ours, face in zip(found["EMBEDDINGS"], expected, strict=True)]
    assert min(cosines) >= 0.9999


def test_detection_only_gives_boxes_scores_and_landmarks(server: TritonServer) -> None:
    before = settled(lambda: executions(server, "face_rec_standin"))
    found = analyse(server, face_standins.solvay().read_bytes(), recognition=False)
    assert {name: value.shape for name, value in found.items()} == {
        "BOXES": (29, 4),
        "SCORES": (29,),
        "LANDMARKS": (29, 5, 2),
        "EMBEDDINGS": (0, 512),
        "IMAGE_SIZE": (2,),
    }
    assert settled(lambda: executions(server, "face_rec_standin")) == before


@pytest.mark.parametrize("name", ["blank.jpg", "tiny_16px.png", "cat_no_text_no_face.jpg"])
def test_no_face_is_an_answer_too(server: TritonServer, name: str) -> None:
    found = analyse(server, (IMAGES / name).read_bytes())
    assert found["BOXES"].shape == (0, 4)
    assert found["EMBEDDINGS"].shape == (0, 512)


def test_the_score_asked_for_decides(server: TritonServer) -> None:
    image = (IMAGES / "astronaut.jpg").read_bytes()
    (score,) = analyse(server, image)["SCORES"]
    assert len(analyse(server, image, min_score=str(score - 0.001))["SCORES"]) == 1
    assert len(analyse(server, image, min_score=str(score + 0.001))["SCORES"]) == 0


def test_no_more_faces_than_asked_for(server: TritonServer) -> None:
    image = (IMAGES / "astronaut.jpg").read_bytes()
    assert len(analyse(server, image, min_score="0")["SCORES"]) == 300
    best = analyse(server, image, min_score="0", max_faces=5)
    assert best["EMBEDDINGS"].shape == (5, 512)
    assert best["SCORES"][0] > 0.7


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"min_score": "-0.01"}, "min_score must lie between 0 and 1"),
        ({"min_score": "1.5"}, "min_score must lie between 0 and 1"),
        ({"min_score": "nan"}, "min_score must be a number"),
        ({"max_faces": 0}, "max_faces must be at least 1"),
    ],
)
def test_bounds_that_make_no_sense_are_the_fault_of_the_request(
    server: TritonServer, parameters: dict[str, str | int], reason: str
) -> None:
    with pytest.raises(InferenceServerException, match=f"bad input: parameter {reason}") as raised:
        analyse(server, (IMAGES / "astronaut.jpg").read_bytes(), **parameters)
    assert raised.value.status() == "400"


@pytest.mark.parametrize("image", [b"", b"no image", (IMAGES / "astronaut.jpg").read_bytes()[:9000]])
def test_bad_images_are_the_fault_of_the_request(server: TritonServer, image: bytes) -> None:
    with pytest.raises(InferenceServerException, match="bad input: the ") as raised:
        analyse(server, image)
    assert raised.value.status() == "400"


def test_a_missing_model_is_the_fault_of_the_server(server: TritonServer) -> None:
    with pytest.raises(InferenceServerException, match="face_det_gone") as raised:
        analyse(server, (IMAGES / "astronaut.jpg").read_bytes(), detector="face_det_gone")
    assert raised.value.status() == "500"


def test_concurrent_requests_get_their_own_answers(server: TritonServer) -> None:
    portraits = {name: path.read_bytes() for name, path in face_standins.portraits().items()}
    alone = {name: analyse(server, image) for name, image in portraits.items()}
    wanted = [*portraits, "bad"] * 3
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pending = [(name, pool.submit(_post, server, portraits.get(name, b"no image"))) for name in wanted]
        for name, future in pending:
            status, boxes = future.result()
            if name == "bad":
                assert status == 400
            else:
                assert status == 200
                assert boxes == alone[name]["BOXES"].ravel().tolist()


def _post(server: TritonServer, image: bytes) -> tuple[int, list[float]]:
    """Ask with requests: tritonclient's synchronous client breaks in threads."""
    payload = len(image).to_bytes(4, "little") + image
    given = {
        "name": "IMAGE",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(payload)},
    }
    header = json.dumps(
        {"inputs": [given], "outputs": [{"name": "BOXES"}], "parameters": {**MODELS, "min_score": "0.7"}}
    )
    response = requests.post(
        f"{server.url}/v2/models/faces/infer",
        data=header.encode() + payload,
        headers={"Inference-Header-Content-Length": str(len(header))},
        timeout=120,
    )
    return response.status_code, response.json()["outputs"][0]["data"] if response.ok else []
