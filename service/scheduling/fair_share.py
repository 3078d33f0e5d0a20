"""Which model's queue runs next on a shared device, and how long a newcomer would wait. Pure policy.

Queues share device time fairly (start-time fair queueing, Goyal et al. 1996): each has a virtual time that grows
by the seconds its batches take, and the least one runs next. A queue that was idle joins at the present virtual
time, so that a model that was quiet is neither punished nor owed. Least slack first would be simpler, but under a
flood the flooded queue's head always has the least slack, and a quiet model's requests wait as long as its own.

A batch can't be interrupted, so a newcomer waits for the one that runs. While several models are in use, none may
run a batch so long that the others notice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from typing import Any, Generic, TypeVar

from service.scheduling.batch_queue import BatchQueue, Priority

K = TypeVar("K", bound=Hashable)

_IN_USE_S = 10.0  # a model that ran within this time is in use
_NOTICE = 1.0  # a wait of this many times its own batch of one is what a model's clients notice


class DeviceShare(Generic[K]):
    """The queues on one device, or on several alike, by any key."""

    def __init__(self, devices: int = 1) -> None:
        self._queues: dict[K, BatchQueue[Any]] = {}
        self._holds: dict[K, int] = {}
        self._virtual: dict[K, float] = {}
        self._ran_at: dict[K, float] = {}
        self._present = 0.0
        self._free_at = [0.0] * devices

    def add(self, key: K, queue: BatchQueue[Any], holds: int = 1) -> None:
        """Let ``queue`` share the devices; its costs are those of a batch that holds so many of them at a time."""
        self._queues[key] = queue
        self._holds[key] = holds
        self._virtual[key] = self._present

    def next(self) -> K | None:
        """Return the queue that may run now, or None when none has a decoded ticket."""
        runnable = [key for key, queue in self._queues.items() if queue.ready]
        if not runnable:
            return None
        return min(runnable, key=lambda key: max(self._virtual[key], self._present))

    def seconds(self, key: K, size: int, devices: int = 1) -> float:
        """Return the predicted time of a batch on so many devices; on more than its costs are for, of a lone one."""
        queue = self._queues[key]
        if devices > self._holds[key]:
            return queue.alone * queue.cost.seconds(size)
        return queue.cost.seconds(size) * self._holds[key] / devices

    def started(self, key: K, size: int, now: float, devices: Collection[int] = (0,)) -> None:
        """Charge a batch of ``size`` at its predicted cost, and hold ``devices`` for so long."""
        seconds = self.seconds(key, size, len(devices))
        self._present = max(self._virtual[key], self._present)
        self._virtual[key] = self._present + seconds * len(devices)
        for device in devices:
            self._free_at[device] = now + seconds
        self._ran_at[key] = now

    def longest(self, key: K, now: float) -> float:
        """Return the seconds that a batch of this queue may take, for the sake of the other models in use."""
        others = [
            queue.cost.seconds(1)
            for other, queue in self._queues.items()
            if other != key and (queue.ready or now - self._ran_at.get(other, -math.inf) < _IN_USE_S)
        ]
        return _NOTICE * min(others, default=math.inf)

    def wait(self, key: K, priority: Priority, now: float) -> float:
        """Return the predicted seconds before a new ticket of ``priority`` would start.

        The rest of the batch that runs, what is ahead in its own queue, and of every other queue as much as a fair
        share lets run in that time. Several devices take on all that work as they become free, the first free first;
        a queue whose batches hold all of them waits for the last.
        """
        if max(self._free_at) <= now and not any(map(len, self._queues.values())):
            return 0.0  # as would come out below, which each request of an idle server would wait for
        own = self._queues[key].backlog(priority) * self._holds[key]
        share = own + self.seconds(key, 1)
        waiting = {other: queue.backlog() * self._holds[other] for other, queue in self._queues.items()}
        others = sum(min(work, share) for other, work in waiting.items() if other != key)
        busy = sorted(max(0.0, free_at - now) for free_at in self._free_at)
        wait = min((sum(busy[:devices]) + own + others) / devices for devices in range(1, len(busy) + 1))
        return max(wait, busy[-1]) if self._holds[key] == len(busy) else wait
