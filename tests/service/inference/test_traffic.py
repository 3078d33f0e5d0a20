from __future__ import annotations

import pytest

from service.inference.traffic import Traffic

OLD = Traffic(stable=1, canary=2, canary_share=0.5)


@pytest.mark.parametrize(
    ("wanted", "served", "moved"),
    [
        (Traffic(stable=3, canary=4, canary_share=0.1), {1, 2, 3, 4}, Traffic(stable=3, canary=4, canary_share=0.1)),
        (Traffic(stable=3, canary=4, canary_share=0.1), {1, 2, 3}, Traffic(stable=3, canary=2, canary_share=0.5)),
        (Traffic(stable=3, canary=4, canary_share=0.1), {1, 2, 4}, Traffic(stable=1, canary=4, canary_share=0.1)),
        (Traffic(stable=2, canary=4, canary_share=0.1), {1, 2}, Traffic(stable=2)),  # the old canary is stable now
        (Traffic(), {1, 2}, Traffic()),
        (Traffic(stable=3), {1, 2}, Traffic(stable=1)),
        (Traffic(canary=4, canary_share=0.1), {1, 2}, Traffic(canary=2, canary_share=0.5)),
    ],
)
def test_a_label_moves_once_its_version_is_served(wanted: Traffic, served: set[int], moved: Traffic) -> None:
    assert wanted.moved(OLD, served) == moved


def test_a_label_that_nobody_had_before_is_lost_until_its_version_is_served() -> None:
    assert OLD.moved(Traffic(), {1}) == Traffic(stable=1)
