"""Models and tickets for a scheduler that runs nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.scheduling.batch_queue import BatchQueue, Terms
from service.scheduling.cost_model import CostModel
from service.scheduling.scheduler import Model, Run, Scheduler

MAX_QUEUE = 12


class Named:
    """A session that is never run."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise AssertionError


def served(to: Scheduler, name: str, seconds: float, slots: int = 1) -> Model:
    """A model whose images take ``seconds`` each, and whose batches take 0.02 s more."""
    cost = CostModel({size: 0.02 + seconds * size for size in (1, 2, 4, 8)})
    model = Model(name, tuple(Named() for _ in range(slots)), BatchQueue(cost, MAX_QUEUE))
    to.add(model)
    return model


def put(to: Scheduler, model: Model, count: int, now: float = 0.0) -> None:
    for _ in range(count):
        (ticket,), _ = to.admit(model, Terms(now + 1000.0), now)
        to.decoded(ticket)


def started(by: Scheduler, now: float = 0.0) -> Run:
    run = by.next(now)
    assert isinstance(run, Run)
    return run
