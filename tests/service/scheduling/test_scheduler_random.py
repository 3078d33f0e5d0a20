"""The whole policy in virtual time: arrivals, decoding, departures, slow and failed batches, trials in any order."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import Overloaded, Unavailable
from service.scheduling.batch_queue import BatchQueue, Priority, Terms, Ticket
from service.scheduling.cost_model import CostModel
from service.scheduling.scheduler import Model, Run, Scheduler, Trial

MAX_QUEUE = 12
SESSIONS = {"one": 1, "two": 2}  # by model; the first model uses one of the two slots
SECONDS = {"one": 0.05, "two": 0.2}  # of one image, by model
TRIAL_S = 0.5
NEVER = 1e9


class Silent:
    """A session that is never run."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise AssertionError


@dataclass(frozen=True)
class Arrival:
    """A request. Times are in seconds. ``gap`` is the time since the arrival before."""

    gap: float
    model: str
    priority: Priority
    patience: float
    decode: float
    leaves: float


@dataclass
class World:
    """Slots, clients and a clock around one scheduler. An event is a time, a serial number, and what happens."""

    slow: list[float]
    scheduler: Scheduler = field(default_factory=Scheduler)
    models: dict[str, Model] = field(default_factory=dict)
    events: list[tuple[float, int, str, object]] = field(default_factory=list)
    owner: dict[Ticket, Model] = field(default_factory=dict)
    ended: dict[Ticket, str] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)
    order: itertools.count[int] = field(default_factory=itertools.count)
    refused: int = 0
    trials: int = 0

    def __post_init__(self) -> None:
        self.slowness = itertools.cycle(self.slow)
        for name, count in SESSIONS.items():
            cost = CostModel({size: 0.02 + SECONDS[name] * size for size in (1, 2, 4, 8)})
            model = Model(name, tuple(Silent() for _ in range(count)), BatchQueue(cost, MAX_QUEUE))
            self.models[name] = model
            self.scheduler.add(model)

    def at(self, time: float, what: str, about: object) -> None:
        heapq.heappush(self.events, (time, next(self.order), what, about))

    def end(self, ticket: Ticket, how: str) -> None:
        assert ticket not in self.ended
        self.ended[ticket] = how

    def arrive(self, now: float, arrival: Arrival) -> None:
        model = self.models[arrival.model]
        try:
            (ticket,), shed = self.scheduler.admit(model, Terms(now + arrival.patience, arrival.priority), now)
        except (Overloaded, Unavailable):
            self.refused += 1
            return
        self.owner[ticket] = model
        for victim in shed:
            assert victim.priority > ticket.priority
            self.end(victim, "shed")
        self.at(now + arrival.decode, "decoded", ticket)
        self.at(now + arrival.leaves, "leaves", ticket)

    def start(self, now: float) -> None:
        while (run := self.scheduler.next(now)) is not None:
            if isinstance(run, Trial):
                assert not self.busy, "a trial ran beside a batch"
                self.busy |= set(range(self.scheduler.slots))
                self.at(now + TRIAL_S, "tried out", run)
                continue
            for ticket in run.dropped:
                self.end(ticket, "dropped")
            if run.tickets:
                self.run(now, run)

    def run(self, now: float, run: Run) -> None:
        assert run.slot not in self.busy, "two batches ran on one slot"
        assert run.session is run.model.sessions[run.slot]
        assert len(run.tickets) <= run.size <= 8
        self.busy.add(run.slot)
        for ticket in run.tickets:
            assert ticket.decoded
            assert now < ticket.deadline
            self.end(ticket, "ran")
        last = max(ticket.priority for ticket in run.tickets)
        left = (t for t, model in self.owner.items() if model is run.model and t.decoded and t not in self.ended)
        assert all(ticket.priority >= last for ticket in left), "a ticket overtook one of higher priority"
        self.at(now + run.seconds * next(self.slowness), "finished", (run, now))

    def happen(self, now: float, what: str, about: object) -> None:
        if isinstance(about, Arrival):
            self.arrive(now, about)
        elif isinstance(about, Trial):
            self.busy.clear()
            self.trials += 1
            self.scheduler.tried_out(about, now)
        elif isinstance(about, Ticket):
            if about in self.ended:
                return
            if what == "decoded":
                self.scheduler.decoded(about)
            else:
                self.scheduler.cancel(about)
                self.end(about, "left")
        elif isinstance(about, tuple):
            run, started = about
            self.busy.remove(run.slot)
            fails = next(self.slowness) > 2.5  # some batches fail
            for ticket in self.scheduler.finished(run, now, now - started, "failed" if fails else None):
                self.end(ticket, "given up")
            if run.model.breaker.reason is not None:
                self.scheduler.restored(run.model)
        else:
            self.scheduler.try_out(Trial())


arrivals = st.lists(
    st.builds(
        Arrival,
        gap=st.floats(0.0, 0.5),
        model=st.sampled_from(list(SESSIONS)),
        priority=st.sampled_from(Priority),
        patience=st.floats(0.01, 4.0),
        decode=st.floats(0.0, 0.3),
        leaves=st.just(NEVER) | st.floats(0.0, 2.0),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(arrivals, st.lists(st.floats(0.5, 3.0), min_size=1, max_size=10), st.lists(st.floats(0.0, 15.0), max_size=3))
def test_every_ticket_ends_once_and_in_time_and_nothing_idles_while_work_waits(
    arriving: Sequence[Arrival], slow: list[float], trials: list[float]
) -> None:
    world, time = World(slow), 0.0
    for arrival in arriving:
        time += arrival.gap
        world.at(time, "arrives", arrival)
    for moment in trials:
        world.at(moment, "is to be tried out", None)
    while world.events:
        now, _, what, about = heapq.heappop(world.events)
        world.happen(now, what, about)
        world.start(now)
        assert all(len(model.queue) <= MAX_QUEUE for model in world.models.values())
        if not world.busy:
            assert [model.queue.ready for model in world.models.values()] == [0, 0]
    assert set(world.ended) == set(world.owner)
    assert world.refused + len(world.owner) == len(arriving)
    assert world.trials == len(trials)
    assert repr(world.scheduler) == "<idle idle, one: 0 decoded of 0 waiting, two: 0 decoded of 0 waiting>"
    assert [model.running for model in world.models.values()] == [0, 0]
