"""Time several functions in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def in_turns(
    work: Mapping[K, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    block_s: float = 0.0,
) -> dict[K, list[float]]:
    """Return the seconds per call of each function, by ``clock``: one figure per round, after a round to warm up.

    A turn is one call, or as many calls as fill ``block_s`` seconds.
    """
    seconds: dict[K, list[float]] = {key: [] for key in work}
    calls = dict.fromkeys(work, 1)
    for _ in range(rounds + 1):
        for key, run in work.items():
            start = clock()
            for _ in range(calls[key]):
                run()
            seconds[key].append((clock() - start) / calls[key])
            calls[key] = max(1, round(block_s / max(seconds[key][-1], 1e-6)))
    return {key: taken[1:] for key, taken in seconds.items()}


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest of ``values`` that at least ``percent`` % of the values do not exceed. NaN for no values.

    A percentile is therefore one of the measured values (nearest rank, without interpolation).
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.nan
