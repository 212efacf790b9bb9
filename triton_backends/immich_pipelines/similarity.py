"""What InsightFace needs of scikit-image: the similarity transform that moves five landmarks onto a template.

Stands where ``skimage`` is imported. That package brings SciPy, 30 MB in each process, and this is all that is used of
it: the same numbers, to the last bit. By S. Umeyama, "Least-squares estimation of transformation parameters between
two point patterns", PAMI 1991, https://doi.org/10.1109/34.88573; numbers in brackets are its equations.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.floating[Any]]


class SimilarityTransform:
    """Rotation, one scale for both axes, and translation; ``params`` is its homogeneous matrix [3, 3], at first 1."""

    def __init__(self) -> None:
        self.params: npt.NDArray[np.float64] = np.eye(3)

    def estimate(self, source: Points, target: Points) -> bool:
        """Set ``params`` to what moves *source* [N, 2] closest to *target*; all NaN, and False, where nothing does."""
        self.params = _least_squares(source, target)
        return not np.isnan(self.params).any()


def _least_squares(source: Points, target: Points) -> npt.NDArray[np.float64]:
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    covariance = (target - target_mean).T @ centred / len(source)  # [38]
    left, singular, right = np.linalg.svd(covariance)
    # The rank as numpy's `matrix_rank` finds it.
    rank = np.count_nonzero(singular > singular.max() * len(covariance) * np.finfo(np.float64).eps)
    if not rank:
        return np.full((3, 3), np.nan)
    mirror = np.array([1.0, -1.0])
    signs = mirror if np.linalg.det(covariance) < 0 else np.ones(2)  # [39]
    if rank == 2:
        rotation = left @ np.diag(signs) @ right  # [40]
    elif np.linalg.det(left) * np.linalg.det(right) > 0:  # [43], points on a line
        rotation = left @ right
    else:
        rotation = left @ np.diag(mirror) @ right
    scale = 1.0 / centred.var(axis=0).sum() * (singular @ signs)  # [41], [42]
    params = np.eye(3)
    params[:2, :2] = rotation
    params[:2, 2] = target_mean - scale * (params[:2, :2] @ source_mean)
    params[:2, :2] *= scale
    return params


transform: Final = sys.modules[__name__]
"""``from skimage import transform`` gives this module."""
