"""Face embeddings with ArcFace: faces of many images in one run of the net, aligned as InsightFace aligns them.

ArcFace: "Additive Angular Margin Loss for Deep Face Recognition", https://arxiv.org/abs/1801.07698.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np

from immich_pipelines import similarity
from immich_pipelines.faces_detection import Floats, Pixels, Session
from immich_pipelines.parts import part

face_align = part("insightface.utils.face_align", {"skimage": similarity})

SIDE: Final = 112
"""Width and height in pixels of an aligned face."""
DIMENSION: Final = 512
"""Numbers in an embedding."""
INPUT: Final = "pixels"
"""UINT8 [batch, 112, 112, 3], RGB; the exported net contains the normalisation its pack asks for."""
OUTPUT: Final = "embedding"
"""FP32 [batch, 512], as the net gives it: not normalised."""
MAX_BATCH: Final = 32
"""Faces in one run; the exported model's ``max_batch_size``."""

LONGEST: Final = 32_000
"""Longest side of an image that OpenCV warps, in pixels (its own bound is 32,767)."""


class Recognizer:
    """ArcFace behind *session*, which takes `INPUT` and gives `OUTPUT`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def embed(self, faces: Sequence[Pixels]) -> Floats:
        """Return [N, 512] for N aligned faces (see `align`), in as few runs as `MAX_BATCH` allows.

        Raises `ArithmeticError` when the net gives anything but finite numbers: Immich could not store them.
        """
        parts = [np.empty((0, DIMENSION), np.float32)]
        for start in range(0, len(faces), MAX_BATCH):
            parts += self._session.run([OUTPUT], {INPUT: np.stack(faces[start : start + MAX_BATCH])})
        embeddings = np.concatenate(parts)
        if not np.isfinite(embeddings).all():
            raise ArithmeticError("the face recognition model gave numbers that are not finite")
        return embeddings


def align(image: Pixels, landmarks: Floats) -> Pixels | None:
    """Cut the face with *landmarks* [5, 2] out of the RGB *image*: uint8 [112, 112, 3], eyes and mouth in fixed places.

    ``norm_crop`` of InsightFace: a similarity transform onto ArcFace's template, black where the image ends. Returns
    None where no such transform exists, because the landmarks coincide or are not finite. InsightFace goes on with a
    flat crop then, and all such faces would look like one person.
    """
    if not np.isfinite(landmarks).all():
        return None
    if max(image.shape[:2]) > LONGEST:
        image, landmarks = _window(image, landmarks)
    with warnings.catch_warnings():
        # A division by zero where landmarks coincide: the result tells, see below.
        warnings.simplefilter("ignore", RuntimeWarning)
        face, matrix = face_align.norm_crop2(image, landmarks, image_size=SIDE)
    return face if np.isfinite(matrix).all() else None


def _window(image: Pixels, landmarks: Floats) -> tuple[Pixels, Floats]:
    """Return the part of a very long *image* that holds the face, and the landmarks in it.

    The crop reaches no farther than 4.2 times the distance of the landmarks: the template's 112 pixels across a
    diagonal, over the 38 between its eyes and its mouth.
    """
    centre, spread = landmarks.mean(axis=0), float(np.ptp(landmarks, axis=0).max())
    reach = min(5 * spread + SIDE, LONGEST / 2)
    left, top = np.maximum(centre - reach, 0).astype(int)
    right, bottom = np.maximum(centre + reach, 1).astype(int)
    offset = np.array([left, top], np.float32)
    return image[top:bottom, left:right], (landmarks - offset).astype(np.float32)
