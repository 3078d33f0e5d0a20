from __future__ import annotations

import pytest

from service.scheduling.cost_model import CostModel


def affine(a: float, b: float) -> CostModel:
    return CostModel({size: a + b * size for size in (1, 2, 4, 8)})


def test_warm_up_gives_the_line() -> None:
    cost = affine(0.5, 0.1)
    assert cost.seconds(3) == pytest.approx(0.8)


def test_one_size_is_proportional() -> None:
    assert CostModel({4: 2.0}).seconds(8) == pytest.approx(4.0)


def test_sizes_between_those_measured_lie_on_the_line() -> None:
    cost = CostModel({6: 0.7, 1: 0.2}, [6, 3, 1])
    assert cost.sizes == [1, 3, 6]
    assert cost.seconds(3) == pytest.approx(0.4)
    assert cost.next_size(3) == 3


def test_cost_never_falls_below_nothing() -> None:
    """Timing noise can lead to a line with a negative cost for small batches."""
    cost = CostModel({1: 0.01, 2: 0.3, 4: 0.8, 8: 1.9})
    assert 0 < cost.seconds(1) < cost.seconds(2)


def test_it_follows_a_slower_machine() -> None:
    cost = affine(0.5, 0.1)
    for _ in range(20):
        cost.observe(8, 2 * (0.5 + 0.8))
    assert cost.seconds(1) == pytest.approx(2 * 0.6)


def test_one_odd_batch_changes_nothing() -> None:
    cost = affine(0.5, 0.1)
    for seconds in (1.3, 1.3, 60.0, 1.3):
        cost.observe(8, seconds)
    assert cost.seconds(8) == pytest.approx(1.3)


def test_a_remainder_is_padded_where_a_start_is_dear() -> None:
    assert affine(1.0, 0.1).next_size(5) == 8


def test_a_remainder_is_split_where_images_are_dear() -> None:
    cost = affine(0.01, 1.0)
    assert cost.next_size(5) == 4
    assert cost.total(5) == pytest.approx(0.01 + 4 + 0.01 + 1)


def test_full_batches_come_first() -> None:
    cost = affine(1.0, 0.1)
    assert cost.next_size(21) == 8
    assert cost.total(21) == pytest.approx(2 * 1.8 + 1.8)
