"""The server's promises under load, one function per scenario. Each scenario starts its own server and can run alone.

Each scenario measures the capacity just before it uses it, because the speed of a shared machine varies over time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import statistics
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

from bench.hostile import hostile
from bench.patience import patience
from bench.report import Bar, Report
from bench.run import Run, one_by_one
from bench.swap import swap
from bench.timing import percentile
from bench.traffic import poisson
from bench.under_load import CLIENTS, Plan, UnderLoad

log = logging.getLogger("bench")

Scenario = Callable[[Plan], Coroutine[Any, Any, list[Report]]]


async def capacity(plan: Plan) -> list[Report]:
    """Measure the best sustained rate, and the latency of a request on an idle server."""
    async with plan.server() as server:
        alone = await server.closed_loop(plan.model, 1, 20)
        full = await server.closed_loop(plan.model, CLIENTS, 25)
    figures = {f"alone_p{p}_ms": percentile(alone.accepted(), p) * 1e3 for p in (50, 99)}
    figures |= {f"batch_{size}_ms": ms for size, ms in server.models[plan.model]["batch_ms"].items()}
    return [_report("capacity", full, _sound(full), figures)]


async def overload(plan: Plan, name: str, timeout_ms: int | None) -> list[Report]:
    """Offer twice the capacity in three runs: useful work goes on at full rate, and refusals come at once."""
    runs: list[Run] = []
    async with plan.server() as server:
        rates = [await server.capacity(plan.model)]
        for seed in range(3):
            runs.append(await _at_rate(server, 2 * rates[-1], 60, seed=seed, timeout_ms=timeout_ms))
            rates.append(await server.capacity(plan.model))
    # Each run is compared with the mean of the capacities just before and after it.
    ratios = [run.goodput() / statistics.mean(pair) for run, pair in zip(runs, pairwise(rates), strict=True)]
    run = Run.of_all(runs)
    bars = [
        Bar("goodput over best sustained rate, median", statistics.median(ratios), 0.95, at_least=True),
        Bar("p99 of accepted work, s", percentile(run.accepted(), 99), run.deadline_s),
        Bar("p99 of refusals, ms", percentile(run.refused(), 99) * 1e3, 50),
        Bar("refusals without Retry-After", sum(not o.says_when for o in run.of("refused")), 0),
        Bar("memory, last third over middle third, growth", run.growth(), 0.02),
        *_sound(run),
    ]
    figures = {"goodput_per_s": statistics.median(run.goodput() for run in runs)}
    figures |= {f"goodput_ratio_{i}": ratio for i, ratio in enumerate(ratios)}
    figures |= {f"capacity_{i}_per_s": rate for i, rate in enumerate(rates)}
    return [_report(name, run, bars, figures)]


async def steady(plan: Plan) -> list[Report]:
    """Offer 80 % of the capacity: no request waits long."""
    async with plan.server() as server:
        rate = await server.capacity(plan.model)
        busy = partial(server.metric, "inferception_batch_seconds_total", model=plan.model)
        before = await busy()
        run = await _at_rate(server, 0.8 * rate, 60)
        busy_s = await busy() - before
        batch_1_ms = float(server.models[plan.model]["batch_ms"]["1"])
    p99 = percentile(run.accepted(), 99)
    # The latencies on a server of this capacity that takes requests one by one: first for the same arrivals, then for
    # 80,000 Poisson arrivals at 80 % of the capacity.
    same = one_by_one([o.intended for o in run.outcomes], 1 / rate)
    many = one_by_one(poisson(0.8 * rate, 100_000 / rate), 1 / rate)
    figures = {
        "capacity_per_s": rate,
        "batch_1_ms": batch_1_ms,
        "batches_at_a_time": busy_s / (run.end - run.start),
        "md1_p99_same_arrivals_ms": percentile(same, 99) * 1e3,
        "md1_p99_ms": percentile(many, 99) * 1e3,
    }
    return [_report("steady", run, [Bar("p99 over batch-1 time", p99 * 1e3 / batch_1_ms, 4), *_sound(run)], figures)]


async def neighbour(plan: Plan) -> list[Report]:
    """Flood each of two models at three times its capacity, while the other model gets 20 % of its own capacity."""
    reports = []
    async with plan.server() as server:
        others = [name for name in server.models if name != plan.model]
        if not others:
            raise RuntimeError("neighbour needs a second model in the repository; export one, or leave it out")
        rates = {name: await server.capacity(name) for name in (plan.model, others[0])}
        for watched, flooded in (rates, reversed(rates)):
            seconds = plan.seconds(120)
            calm = poisson(0.2 * rates[watched], seconds)
            flood = poisson(3 * rates[flooded], seconds, seed=1)
            unloaded = await server.open_loop(server.workload(watched), calm, seconds)
            run, rest = await asyncio.gather(
                server.open_loop(server.workload(watched), calm, seconds),
                server.open_loop(server.workload(flooded), flood, seconds),
            )
            before, after = percentile(unloaded.accepted(), 99), percentile(run.accepted(), 99)
            bars = [
                Bar(f"p99 of {watched} over its unloaded p99", after / before, 3),
                Bar("share of its requests answered right", len(run.of("right")) / len(run.outcomes), 0.99, True),
                *_sound(run),
                *_sound(rest, f" for {flooded}"),
            ]
            figures = {"unloaded_p99_ms": before * 1e3, "flood_goodput_per_s": rest.goodput()}
            figures |= {f"capacity_{name}_per_s": rate for name, rate in rates.items()}
            reports.append(_report(f"neighbour-{watched}", run, bars, figures))
    return reports


async def drain(plan: Plan) -> list[Report]:
    """Stop servers by SIGTERM at full load, ten times: every request sent before the signal is answered."""
    loop, chance = asyncio.get_running_loop(), random.Random(0)  # noqa: S311 - repeatable, not secret
    rate, runs, lost, dirty, in_flight, exit_s = 0.0, list[Run](), 0, 0, list[int](), list[float]()
    for number in range(1, (2 if plan.quick else 10) + 1):
        async with plan.server() as server:
            rate = rate or await server.capacity(plan.model)
            seconds = plan.seconds(7)
            load = asyncio.create_task(_at_rate(server, 1.5 * rate, seconds, seed=number))
            await asyncio.sleep(seconds * chance.uniform(0.5, 0.8))
            signalled = loop.time()
            server.running.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.running.process.wait, 60)
            exit_s.append(loop.time() - signalled)
            runs.append(await load)
        sent = [o for o in runs[-1].outcomes if o.sent < signalled]
        in_flight.append(sum(o.finished > signalled for o in sent))
        lost += sum(o.kind == "unanswered" for o in sent)
        dirty += code != 0
        log.info("drain %d: %d in flight, exit code %d after %.1f s", number, in_flight[-1], code, exit_s[-1])
    run = Run.of_all(runs)
    bars = [
        Bar("requests lost that were sent before the signal", lost, 0),
        Bar("answers wrong or failed", len(run.of("wrong", "failed")), 0),
        Bar("exits with another code than 0", dirty, 0),
        Bar("requests in flight at the signal, fewest", min(in_flight), 1, at_least=True),
    ]
    figures = {"drains": len(runs), "exit_s_most": max(exit_s)}
    return [_report("drain", run, bars, figures)]


async def vanish(plan: Plan) -> list[Report]:
    """Let 30 % of the clients close their socket within a second, at twice the capacity, so that most of them queue.

    The goodput shows whether the server drops their work. If it did the work, the others would get 70 % of the
    capacity.
    """
    async with plan.server() as server:
        rate = await server.capacity(plan.model)
        counters = partial(_counters, server)
        before = await counters()
        run = await _at_rate(server, 2 * rate, 60, vanishing=0.3)
        await server.closed_loop(plan.model, 1, 0)  # after one answer, the run's last batch has ended
        after = await counters()
        depth = await server.metric("inferception_queue_depth")
    disconnected, inferred = (late - early for early, late in zip(before, after, strict=True))
    gone, answered = max(1, len(run.of("vanished"))), len(run.of("right", "wrong")) + 1
    bars = [
        Bar("goodput over capacity", run.goodput() / rate, 0.85, at_least=True),
        Bar("images inferred for nobody, over vanished", (inferred - answered) / gone, 0.2),
        Bar("disconnects counted, off by this share of the vanished", abs(disconnected - gone) / gone, 0.1),
        Bar("queue depth afterwards", depth, 0),
        Bar("memory, last third over middle third, growth", run.growth(), 0.02),
        *_sound(run),
    ]
    return [_report("vanish", run, bars, {"capacity_per_s": rate, "disconnected": disconnected, "inferred": inferred})]


async def soak(plan: Plan) -> list[Report]:
    """Offer 70 % of the capacity for ten minutes: memory does not grow after the first minute."""
    async with plan.server() as server:
        rate = await server.capacity(plan.model)
        run = await _at_rate(server, 0.7 * rate, 600)
    settled = run.start + (run.end - run.start) / 10
    most = max(size for time, size in run.memory if time > settled)
    bars = [Bar("memory, most after the first minute, growth", most / run.resident(1 / 20, 1 / 10) - 1, 0.05)]
    return [_report("soak", run, [*bars, *_sound(run)], {"capacity_per_s": rate})]


SCENARIOS: dict[str, Scenario] = {
    "capacity": capacity,
    "overload": partial(overload, name="overload", timeout_ms=None),
    "overload-1s": partial(overload, name="overload-1s", timeout_ms=1000),
    "steady": steady,
    "neighbour": neighbour,
    "drain": drain,
    "vanish": vanish,
    "soak": soak,
    "hostile": hostile,
    "patience": patience,
    "swap": swap,
}


async def _at_rate(server: UnderLoad, rate: float, seconds: float, *, seed: int = 0, **options: float | None) -> Run:
    seconds = server.plan.seconds(seconds)
    return await server.open_loop(
        server.workload(server.plan.model, seed=seed, **options), poisson(rate, seconds, seed), seconds
    )


def _report(title: str, run: Run, bars: list[Bar], figures: Mapping[str, float]) -> Report:
    return Report(title, run.figures() | dict(figures), bars, run.plots())


def _sound(run: Run, whose: str = "") -> list[Bar]:
    """Return the bars that hold under any load."""
    return [
        Bar(f"requests unanswered{whose}", len(run.of("unanswered")), 0),
        Bar(f"answers wrong or failed{whose}", len(run.of("wrong", "failed")), 0),
    ]


async def _counters(server: UnderLoad) -> tuple[float, float]:
    """Return the number of disconnects that the server counted, and the number of images that ran in batches."""
    return (
        await server.metric("inferception_disconnected_total"),
        await server.metric("inferception_batch_size_sum", model=server.plan.model),
    )
