"""Measures of a classifier's answers, from arrays alone.

``classes`` are the true classes, integers ``[n]``. ``answers`` are the most probable classes, integers ``[n]``, or
``[n, k]`` with the most probable class first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


def top_k_accuracy(classes: Classes, answers: Classes, k: int) -> float:
    """Return the share of images whose true class is among the first ``k`` of ``answers`` ``[n, at least k]``."""
    return float((answers[:, :k] == classes[:, None]).any(1).mean())


def confusion_matrix(classes: Classes, answers: Classes, count: int) -> NDArray[np.int64]:
    """Return how many images of each class (row) got each answer (column), ``[count, count]``, for answers ``[n]``."""
    return np.bincount(classes * count + answers, minlength=count * count).reshape(count, count)


def class_accuracies(matrix: NDArray[np.int64]) -> Floats:
    """Return the share of right answers of each class of a confusion matrix, NaN for a class without images."""
    totals = matrix.sum(1)
    return np.where(totals > 0, matrix.diagonal() / np.maximum(totals, 1), np.nan)


def most_confused(matrix: NDArray[np.int64], pairs: int) -> list[tuple[int, int, int]]:
    """Return the most frequent wrong answers as (true class, answer, images), the most frequent first."""
    wrong = matrix - np.diag(matrix.diagonal())
    first = np.argsort(-wrong, axis=None, kind="stable")[:pairs]
    rows, columns = np.unravel_index(first, wrong.shape)
    return [(int(i), int(j), int(wrong[i, j])) for i, j in zip(rows, columns, strict=True) if wrong[i, j]]


class Reliability(NamedTuple):
    """Images by confidence, in bins of equal width from 0 to 1, each array ``[bins]``.

    ``images`` counts them, ``confidence`` is their mean confidence and ``accuracy`` the share of right answers. Both
    are 0 for an empty bin.
    """

    images: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def calibration_error(self) -> float:
        """The expected calibration error: the mean over images of their bin's |accuracy - confidence|."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.images * gaps).sum() / self.images.sum())


def reliability(confidences: Floats, right: NDArray[np.bool_], bins: int = 15) -> Reliability:
    """Sort answers into bins by their confidence, as "On Calibration of Modern Neural Networks" does.

    ``confidences`` ``[n]`` are the probabilities of the most probable classes, and ``right`` ``[n]`` says which of
    these classes are true. Bin m of M holds the confidences above (m - 1) / M and up to m / M. Guo et al. 2017,
    https://arxiv.org/abs/1706.04599, section 2.
    """
    places = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(places, minlength=bins)
    filled = np.maximum(images, 1)
    confidence = np.bincount(places, weights=confidences, minlength=bins) / filled
    accuracy = np.bincount(places, weights=right, minlength=bins) / filled
    return Reliability(images, confidence, accuracy)
