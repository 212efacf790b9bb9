"""Faces end to end: the request Immich sends, through the real gateway, to real nets in the real Triton."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import face_standins
import numpy as np
import pytest
from embedded_triton import TritonServer
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder, recording_upstream

from immich_triton.export.faces.check import cosine
from immich_triton.immich.ml_client import entries_for, predict

DATA = Path(__file__).parents[1] / "data"
MOST = 40
RECORDED = sorted((DATA / "stock").glob("*.faces.json"))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(
    face_triton: TritonServer, upstream: Recorder, face_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with running_gateway(
        tmp_path_factory.mktemp("gateway"),
        models=face_models,
        triton_url=face_triton.url,
        upstream=upstream.url,
        immich_max_faces=MOST,
    ) as process:
        yield process


@pytest.fixture(autouse=True)
def _nothing_goes_upstream(upstream: Recorder) -> Iterator[None]:
    upstream.seen.clear()
    yield
    assert upstream.seen == []


def entries(*types: str, model: str = "buffalo_l", min_score: float = 0.7) -> dict[str, Any]:
    """What Immich sends, or only some *types* of it."""
    whole: dict[str, Any] = json.loads(json.dumps(entries_for("faces", model)))
    ((task, parts),) = whole.items()
    parts["detection"]["options"]["minScore"] = min_score
    return {task: {name: parts[name] for name in types or parts}}


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: path.name)
def test_answers_what_stock_answered(gateway: GatewayProcess, recorded: Path) -> None:
    expected = json.loads(recorded.read_text(encoding="utf-8"))
    image = (DATA / "images" / recorded.name.removesuffix(".faces.json")).read_bytes()
    answer = predict(gateway.url, entries(model="buffalo_m"), image=image)
    assert answer.status == 200
    assert answer.body.keys() == expected.keys()
    assert (answer.body["imageHeight"], answer.body["imageWidth"]) == (expected["imageHeight"], expected["imageWidth"])
    found, faces = answer.body["facial-recognition"], expected["facial-recognition"]
    assert len(found) == len(faces)
    for ours, theirs in zip(found, faces, strict=True):
        assert ours.keys() == theirs.keys()
        assert {corner: pytest.approx(value, abs=1) for corner, value in theirs["boundingBox"].items()} == ours[
            "boundingBox"
        ]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-3)
        assert cosine(vector(ours), vector(theirs)) >= 0.999


def vector(face: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The embedding, which travels as a string that holds a JSON array."""
    assert isinstance(face["embedding"], str)
    return np.array(json.loads(face["embedding"]), np.float32)


def test_a_group_photo(gateway: GatewayProcess) -> None:
    answer = predict(gateway.url, entries(), image=face_standins.solvay().read_bytes())
    assert answer.status == 200
    faces = answer.body["facial-recognition"]
    assert len(faces) == 29
    assert {vector(face).shape for face in faces} == {(512,)}
    assert all(float(edge).is_integer() for face in faces for edge in face["boundingBox"].values())
    scores = [face["score"] for face in faces]
    assert scores == sorted(scores, reverse=True)


def test_the_least_score_of_the_request_counts(gateway: GatewayProcess) -> None:
    image = (DATA / "images" / "astronaut.jpg").read_bytes()
    counts = [
        len(predict(gateway.url, entries(min_score=bound), image=image).body["facial-recognition"])
        for bound in (0.8, 0.9)
    ]
    assert counts == [1, 0]


def test_a_least_score_of_zero_finds_no_more_faces_than_allowed(gateway: GatewayProcess) -> None:
    image = (DATA / "images" / "astronaut.jpg").read_bytes()
    found = predict(gateway.url, entries(min_score=0), image=image).body["facial-recognition"]
    assert len(found) == MOST
    assert found[0]["score"] > 0.7


@pytest.mark.parametrize("bound", [-0.1, 1.1])
def test_a_least_score_that_is_none_is_refused(gateway: GatewayProcess, bound: float) -> None:
    answer = predict(gateway.url, entries(min_score=bound), image=(DATA / "images" / "astronaut.jpg").read_bytes())
    assert answer.status == 422
    assert "minScore of facial-recognition/detection must lie between 0 and 1" in answer.body["detail"]


def test_detection_alone(gateway: GatewayProcess) -> None:
    answer = predict(gateway.url, entries("detection"), image=face_standins.solvay().read_bytes())
    assert answer.status == 200
    found = answer.body["facial-recognition"]
    assert found.keys() == {"boxes", "scores", "landmarks"}
    assert (np.shape(found["boxes"]), np.shape(found["scores"]), np.shape(found["landmarks"])) == (
        (29, 4),
        (29,),
        (29, 5, 2),
    )


@pytest.mark.parametrize("foreign", ["detection", "recognition"])
def test_half_of_the_task_routed_is_a_clear_400(gateway: GatewayProcess, foreign: str) -> None:
    mixed = entries()
    mixed["facial-recognition"][foreign]["modelName"] = "not-ours"
    answer = predict(gateway.url, mixed, image=(DATA / "images" / "astronaut.jpg").read_bytes())
    assert answer.status == 400
    assert "belong together" in answer.body["detail"]


def test_models_of_two_packs_do_not_mix(gateway: GatewayProcess) -> None:
    mixed = entries()
    mixed["facial-recognition"]["recognition"]["modelName"] = "buffalo_m"
    answer = predict(gateway.url, mixed, image=(DATA / "images" / "astronaut.jpg").read_bytes())
    assert answer.status == 400


@pytest.mark.parametrize("image", [b"no image", (DATA / "images" / "astronaut.jpg").read_bytes()[:9000]])
def test_a_bad_image_is_a_400(gateway: GatewayProcess, image: bytes) -> None:
    answer = predict(gateway.url, entries(), image=image)
    assert answer.status == 400
    assert "image" in answer.body["detail"]
