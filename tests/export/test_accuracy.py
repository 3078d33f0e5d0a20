from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from export.accuracy import class_accuracies, confusion_matrix, most_confused, reliability, top_k_accuracy


def test_top_k_accuracy_by_hand() -> None:
    classes = np.array([0, 1, 2, 2])
    answers = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2], [2, 1, 0]])
    assert [top_k_accuracy(classes, answers, k) for k in (1, 2, 3, 5)] == [0.5, 0.75, 1.0, 1.0]


def test_confusion_by_hand() -> None:
    matrix = confusion_matrix(np.array([0, 0, 0, 1, 3, 3]), np.array([0, 1, 1, 1, 0, 3]), 4)
    assert matrix.tolist() == [[1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    assert class_accuracies(matrix).tolist() == pytest.approx([1 / 3, 1, np.nan, 0.5], nan_ok=True)
    assert most_confused(matrix, 5) == [(0, 1, 2), (3, 0, 1)]
    assert most_confused(matrix, 1) == [(0, 1, 2)]


def test_reliability_by_hand() -> None:
    """Four bins. The edge 0.5 belongs to the bin below it, and 0 to the first bin."""
    confidences = np.array([0.0, 0.5, 0.3, 1.0, 0.9, 0.8])
    right = np.array([False, True, False, True, True, False])
    measured = reliability(confidences, right, bins=4)
    assert measured.images.tolist() == [1, 2, 0, 3]
    assert measured.confidence.tolist() == pytest.approx([0.0, 0.4, 0.0, 0.9])
    assert measured.accuracy.tolist() == pytest.approx([0.0, 0.5, 0.0, 2 / 3])
    assert measured.calibration_error == pytest.approx((1 * 0 + 2 * 0.1 + 3 * (0.9 - 2 / 3)) / 6)


def test_all_measures_are_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    probabilities, classes = rng.dirichlet(np.full(7, 0.4), 1000), rng.integers(0, 7, 1000)
    answers = np.argsort(-probabilities, axis=1)
    first, theirs = answers[:, 0], (torch.from_numpy(probabilities), torch.from_numpy(classes), 7)
    for k in (1, 5):
        expected = multiclass_accuracy(*theirs, average="micro", top_k=k).item()
        assert top_k_accuracy(classes, answers, k) == pytest.approx(expected, rel=1e-6)
    matrix = confusion_matrix(classes, first, 7)
    assert np.array_equal(matrix, multiclass_confusion_matrix(*theirs).numpy())
    assert class_accuracies(matrix) == pytest.approx(multiclass_accuracy(*theirs, average="none").numpy(), rel=1e-6)
    error = multiclass_calibration_error(*theirs, n_bins=15, norm="l1").item()
    assert reliability(probabilities.max(1), first == classes).calibration_error == pytest.approx(error, rel=1e-6)
