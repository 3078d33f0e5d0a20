"""Clients that set no deadline and lose interest after a second, at twice the capacity of the service."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

from bench.report import Bar, Report
from bench.run import Run
from bench.server import Server, plain
from bench.traffic import open_loop, poisson
from bench.under_load import Plan, watched
from bench.workload import Workload

WORTH_S = 1.0  # an answer that takes longer is worth nothing
PLAIN_LIMIT = 6  # requests at a time, the usual advice for such a server


async def patience(plan: Plan) -> list[Report]:
    """Offer the same load to the service and to a plain server that refuses all but six requests at a time."""
    seconds, runs, plain_runs, rates = plan.seconds(30), list[Run](), list[Run](), list[float]()
    folder = plan.models[plan.model].folder
    async with plan.server() as server:
        precision = server.models[plan.model]["precision"]
        with plain(folder, precision, PLAIN_LIMIT) as other:
            for seed in range(3):
                rates.append(await server.capacity(plan.model))
                arrivals = poisson(2 * rates[-1], seconds, seed)
                runs.append(await _offer(plan, server.running, arrivals, seconds))
                plain_runs.append(await _offer(plan, other, arrivals, seconds))
    shares = [run.goodput() / rate for run, rate in zip(runs, rates, strict=True)]
    beside = [run.goodput() / other.goodput() for run, other in zip(runs, plain_runs, strict=True)]
    run = Run.of_all(runs)
    bars = [
        Bar("answers within 1 s over capacity, median", statistics.median(shares), 0.85, at_least=True),
        Bar("answers within 1 s over those of the plain server, median", statistics.median(beside), 0.9, at_least=True),
        Bar("requests unanswered", len(run.of("unanswered")), 0),
    ]
    figures = {"plain_goodput_per_s": statistics.median(other.goodput() for other in plain_runs)}
    figures |= {f"goodput_ratio_{i}": share for i, share in enumerate(shares)}
    figures |= {f"over_plain_{i}": ratio for i, ratio in enumerate(beside)}
    return [Report("patience", run.figures() | figures, bars, run.plots())]


async def _offer(plan: Plan, server: Server, arrivals: Sequence[float], seconds: float) -> Run:
    workload = Workload(server.address, plan.photos(plan.model), plan.model)
    with watched(server) as memory:
        start = asyncio.get_running_loop().time()
        outcomes = await open_loop(workload, arrivals, start)
    return Run(start, start + seconds, WORTH_S, outcomes, memory)
