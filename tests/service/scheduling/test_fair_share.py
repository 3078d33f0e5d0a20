"""The whole policy under virtual time: random arrivals, decoding, cancels, slow batches, two models on one device."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import Overloaded
from service.scheduling.batch_queue import BatchQueue, Priority, Ticket
from service.scheduling.cost_model import CostModel
from service.scheduling.fair_share import DeviceShare

MAX_QUEUE = 12


def share(devices: int = 1, **costs: float) -> tuple[DeviceShare[str], dict[str, BatchQueue[Ticket]]]:
    """A device with one queue a keyword, whose value is the seconds an image takes."""
    device: DeviceShare[str] = DeviceShare(devices)
    queues = {}
    for name, seconds in costs.items():
        cost = CostModel({size: 0.02 + seconds * size for size in (1, 2, 4, 8)})
        queues[name] = BatchQueue[Ticket](cost, MAX_QUEUE)
        device.add(name, queues[name])
    return device, queues


def put(device: DeviceShare[str], queues: dict[str, BatchQueue[Ticket]], name: str, count: int, now: float) -> None:
    for _ in range(count):
        ticket = Ticket(now + 1000.0)
        queues[name].offer(ticket, now, device.wait(name, ticket.priority, now))
        ticket.decoded = True


def test_an_empty_device_has_nothing_to_run() -> None:
    device, _ = share(a=0.1)
    assert device.next() is None


def test_a_flood_on_one_model_does_not_hold_up_the_other() -> None:
    device, queues = share(flooded=0.1, quiet=0.1)
    put(device, queues, "flooded", MAX_QUEUE, 0.0)
    queues["flooded"].take(0.0)
    device.started("flooded", 8, 0.0)
    put(device, queues, "quiet", 1, 0.1)
    assert device.next() == "quiet"


def test_busy_models_get_equal_device_time_whatever_they_cost() -> None:
    device, queues = share(light=0.01, heavy=0.05)
    now, used = 0.0, dict.fromkeys(queues, 0.0)
    for _ in range(200):
        for name, queue in queues.items():
            put(device, queues, name, MAX_QUEUE - len(queue), now)
        chosen = device.next()
        assert chosen is not None
        batch = queues[chosen].take(now)
        seconds = queues[chosen].cost.seconds(batch.size)
        device.started(chosen, batch.size, now)
        used[chosen] += seconds
        now += seconds
    assert used["light"] == pytest.approx(used["heavy"], rel=0.05)


def test_several_devices_share_what_waits() -> None:
    device, queues = share(devices=2, a=0.1)
    cost = queues["a"].cost
    put(device, queues, "a", 8, 0.0)
    assert device.wait("a", Priority.NORMAL, 0.0) == pytest.approx(cost.seconds(8) / 2)
    queues["a"].take(0.0)
    device.started("a", 8, 0.0, [0])
    assert device.wait("a", Priority.NORMAL, 0.0) == 0.0  # the other is free
    device.started("a", 2, 0.0, [1])
    assert device.wait("a", Priority.NORMAL, 0.0) == pytest.approx(cost.seconds(2))
    put(device, queues, "a", 1, 0.0)
    assert device.wait("a", Priority.NORMAL, 0.0) == pytest.approx(cost.seconds(2) + cost.seconds(1))
    put(device, queues, "a", 7, 0.0)
    longest, least = cost.seconds(8), cost.seconds(2)  # the second device works until the first is free, then both
    assert device.wait("a", Priority.NORMAL, 0.0) == pytest.approx((longest + least + cost.seconds(8)) / 2)


def test_a_batch_may_hold_both_devices() -> None:
    """By costs of one device for the first queue, of whose batches lone ones hold both, and of both for the second."""
    cost = CostModel({size: 0.2 * size for size in (1, 2, 4, 8)})
    device: DeviceShare[str] = DeviceShare(2)
    for name, holds, alone in (("streams", 1, 0.6), ("whole", 2, 1.0)):
        device.add(name, BatchQueue[Ticket](cost, MAX_QUEUE, alone), holds)
    assert device.seconds("streams", 4) == pytest.approx(0.8)
    assert device.seconds("streams", 1, 2) == pytest.approx(0.12)
    assert device.seconds("whole", 4, 2) == pytest.approx(0.8)
    device.started("streams", 1, 0.0, [0, 1])
    assert device.wait("streams", Priority.NORMAL, 0.0) == pytest.approx(0.12)
    device.started("whole", 4, 0.2, [0, 1])
    assert device.wait("streams", Priority.NORMAL, 0.2) == pytest.approx(0.8)
    # One that waits for both takes as long as two that wait for one.
    queues = device._queues
    queues["whole"].offer(Ticket(1000.0), 0.2, 0.0)
    assert device.wait("whole", Priority.NORMAL, 0.2) == pytest.approx(0.8 + 0.2)


def test_what_needs_both_devices_waits_for_the_last() -> None:
    cost = CostModel({size: 0.2 * size for size in (1, 2, 4, 8)})
    device: DeviceShare[str] = DeviceShare(2)
    for name, holds in (("streams", 1), ("whole", 2)):
        device.add(name, BatchQueue[Ticket](cost, MAX_QUEUE), holds)
    device.started("streams", 4, 0.0, [0])
    assert device.wait("streams", Priority.NORMAL, 0.0) == 0.0
    assert device.wait("whole", Priority.NORMAL, 0.0) == pytest.approx(0.8)


def test_a_quiet_model_saves_up_no_claim() -> None:
    device, queues = share(busy=0.1, quiet=0.1)
    now = 0.0
    for _ in range(50):
        put(device, queues, "busy", 1, now)
        batch = queues["busy"].take(now)
        device.started("busy", batch.size, now)
        now += 1.0
    for name in queues:
        put(device, queues, name, MAX_QUEUE, now)
    ran = []
    for _ in range(2):
        chosen = device.next()
        assert chosen is not None
        device.started(chosen, queues[chosen].take(now).size, now)
        ran.append(chosen)
    assert set(ran) == {"busy", "quiet"}


def test_batches_are_short_while_another_model_is_in_use() -> None:
    device, queues = share(flooded=0.04, quiet=0.1)
    assert device.longest("flooded", 0.0) == math.inf
    put(device, queues, "quiet", 1, 0.0)
    device.started("quiet", queues["quiet"].take(0.0).size, 0.0)
    put(device, queues, "flooded", 8, 1.0)
    longest = device.longest("flooded", 1.0)
    assert longest == pytest.approx(0.12)
    assert queues["flooded"].take(1.0, longest).size == 2
    assert device.longest("flooded", 60.0) == math.inf


def test_the_wait_counts_what_runs_what_is_ahead_and_a_fair_share_of_others() -> None:
    device, queues = share(own=0.1, other=0.1)
    assert device.wait("own", Priority.NORMAL, 0.0) == 0.0
    device.started("other", 8, 0.0)
    assert device.wait("own", Priority.NORMAL, 0.5) == pytest.approx(0.32)
    put(device, queues, "own", 8, 0.0)
    assert device.wait("own", Priority.NORMAL, 0.5) == pytest.approx(0.32 + 0.82)
    put(device, queues, "other", 4, 0.0)
    assert device.wait("own", Priority.NORMAL, 0.5) == pytest.approx(0.32 + 0.82 + 0.42)


arrivals = st.lists(
    st.tuples(
        st.floats(0.0, 0.5),  # seconds since the arrival before
        st.sampled_from(["a", "b"]),
        st.sampled_from(Priority),
        st.floats(0.01, 4.0),  # seconds until the deadline
        st.floats(0.0, 0.3),  # seconds that decoding takes
        st.none() | st.floats(0.0, 2.0),  # seconds until the client leaves
    ),
    max_size=60,
)
slowdowns = st.lists(st.floats(0.5, 3.0), min_size=1, max_size=10)


@settings(deadline=None)
@given(arrivals, slowdowns)
def test_every_ticket_ends_exactly_once_and_in_time(
    arriving: list[tuple[float, str, Priority, float, float, float | None]], slow: list[float]
) -> None:
    device, queues = share(a=0.05, b=0.2)
    slowness = itertools.cycle(slow)
    ended: dict[Ticket, str] = {}
    admitted: list[Ticket] = []
    owner: dict[Ticket, str] = {}
    now, free_at = 0.0, 0.0

    def end(ticket: Ticket, how: str) -> None:
        assert ticket not in ended
        ended[ticket] = how

    def start(now: float) -> float:
        """Start a batch if there is one; return when the device is free."""
        while (name := device.next()) is not None:
            ready = [t for t in admitted if owner[t] == name and t.decoded and t not in ended]
            batch = queues[name].take(now, device.longest(name, now))
            for ticket in batch.dropped:
                end(ticket, "dropped")
            if not batch.tickets:
                continue
            for ticket in batch.tickets:
                assert now < ticket.deadline
                end(ticket, "ran")
            assert len(batch.tickets) <= batch.size <= 8
            left = [t for t in ready if t not in ended]
            assert all(t.priority >= max(ran.priority for ran in batch.tickets) for t in left)
            seconds = queues[name].cost.seconds(batch.size) * next(slowness)
            device.started(name, batch.size, now)
            queues[name].cost.observe(batch.size, seconds)
            return now + seconds
        return now

    events: list[tuple[float, int, str, Ticket]] = []
    at = 0.0
    for i, (gap, name, priority, patience, decode_s, leaves) in enumerate(arriving):
        at += gap
        ticket = Ticket(at + patience, priority)
        owner[ticket] = name
        events.append((at, i, "arrives", ticket))
        events.append((at + decode_s, i, "decoded", ticket))
        if leaves is not None:
            events.append((at + leaves, i, "leaves", ticket))
    for moment, _, what, ticket in sorted(events, key=lambda event: event[:2]):
        while free_at < moment and any(queue.ready for queue in queues.values()):
            free_at = start(max(free_at, now))
        now = moment
        name = owner[ticket]
        if what == "arrives":
            try:
                shed = queues[name].offer(ticket, now, device.wait(name, ticket.priority, now))
            except Overloaded:
                end(ticket, "refused")
            else:
                admitted.append(ticket)
                for victim in shed:
                    assert victim.priority > ticket.priority
                    end(victim, "shed")
        elif what == "decoded":
            ticket.decoded = True
        elif ticket not in ended:
            queues[name].remove(ticket)
            end(ticket, "left")
        assert all(len(queue) <= MAX_QUEUE for queue in queues.values())
        if free_at <= now:
            free_at = start(now)
    while any(queue.ready for queue in queues.values()):
        now = max(now, free_at)
        free_at = start(now)
    assert set(ended) == set(owner)
    assert all(len(queue) == 0 for queue in queues.values())
