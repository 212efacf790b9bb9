"""``similarity`` gives what scikit-image's transform gives, which InsightFace aligns faces with: bit for bit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from immich_pipelines import similarity
from immich_pipelines.faces_recognition import face_align

TEMPLATE = face_align.arcface_dst


def both(landmarks: np.ndarray[Any, Any]) -> tuple[bytes, bytes]:
    """Return our matrix and scikit-image's, as bytes."""
    from skimage.transform import SimilarityTransform

    matrices = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `estimate` is deprecated, and both divide by zero
        for kind in (similarity.SimilarityTransform, SimilarityTransform):
            found = kind()
            found.estimate(landmarks, TEMPLATE)
            matrices.append(np.asarray(found.params, np.float64).tobytes())
    return matrices[0], matrices[1]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("noise", [0.0, 1.0, 40.0])
def test_faces_of_all_sizes_and_angles(noise: float, mirrored: bool) -> None:
    random = np.random.default_rng(int(noise))
    for _ in range(300):
        angle, scale = random.uniform(0, 2 * np.pi), random.uniform(0.01, 30)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        face = (TEMPLATE * [-1 if mirrored else 1, 1]) @ turn + random.uniform(-500, 4000, 2)
        ours, theirs = both((face + random.normal(0, noise * scale, face.shape)).astype(np.float32))
        assert ours == theirs


@pytest.mark.parametrize(
    "landmarks",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 7.25),
        np.array([[index, index] for index in range(5)]),
        np.array([[index, 3] for index in range(5)]),
        np.array([[5, -index] for index in range(5)]),
        np.array([[1, 1], [1, 1], [1, 1], [1, 1], [2, 1]]),
    ],
    ids=["zero", "one point", "diagonal", "horizontal", "vertical", "two points"],
)
def test_what_is_no_face(landmarks: np.ndarray[Any, Any]) -> None:
    ours, theirs = both(landmarks.astype(np.float32))
    assert np.array_equal(np.frombuffer(ours), np.frombuffer(theirs), equal_nan=True)


def test_insightface_uses_it() -> None:
    assert face_align.trans is similarity
