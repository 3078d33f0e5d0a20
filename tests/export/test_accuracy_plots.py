from __future__ import annotations

import numpy as np

from export.accuracy import confusion_matrix, reliability
from export.accuracy_plots import confusion, shown_classes
from export.accuracy_plots import reliability as reliability_diagram


def test_a_small_matrix_shows_the_classes_that_occur() -> None:
    matrix = confusion_matrix(np.array([0, 0, 3, 3, 3]), np.array([0, 1, 3, 3, 3]), 5)
    assert shown_classes(matrix).tolist() == [0, 1, 3]
    axis = confusion(matrix, ["cup", "fork", "glass", "knife, a sharp thing", "plate"], "title").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cup", "fork", "knife"]
    assert [text.get_text() for text in axis.texts] == ["1", "1", "3"]
    assert axis.images[0].get_array().tolist() == [[0.5, 0.5, 0], [0, 0, 0], [0, 0, 1]]  # type: ignore[union-attr]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("answer", "true class", "title")


def test_a_large_matrix_shows_the_classes_with_most_errors() -> None:
    classes = np.repeat(np.arange(1000), 10)
    answers = classes.copy()
    answers[5000:5300:2] += 1  # in classes 500 to 529, whose errors go to their next class
    matrix = confusion_matrix(classes, answers, 1000)
    assert set(shown_classes(matrix)) <= set(range(500, 531))
    figure = confusion(matrix, [f"class {i}" for i in range(1000)], "title")
    assert figure.axes[0].get_title() == "title\nthe 30 classes with most errors, of 1,000"
    assert len(figure.axes[0].get_xticklabels()) == 30


def test_a_reliability_diagram_has_a_column_for_each_precision() -> None:
    measured = reliability(np.array([0.2, 0.9, 0.95]), np.array([False, True, True]))
    upper, other, lower, _ = reliability_diagram({"fp32": measured, "int8": measured}, "title").axes
    assert (upper.get_title(), other.get_title()) == ("fp32, calibration error 0.117", "int8, calibration error 0.117")
    assert [bar.get_height() for bar in lower.patches] == [0, 0, 1] + [0] * 10 + [1, 1]  # type: ignore[attr-defined]
    assert (lower.get_xlabel(), lower.get_ylabel()) == ("confidence", "pictures")
