"""New versions of a model while clients ask: no answer fails, comes late, or is of another version than it says."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import math
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.client import get
from bench.report import Bar, Report
from bench.run import Run
from bench.timing import percentile
from bench.traffic import poisson
from bench.under_load import Plan, UnderLoad
from bench.workload import Outcome

log = logging.getLogger("bench")

_CALM_S = 6.0  # between two swaps
_POLL_MS = 500


@dataclass
class Swap:
    """One swap to ``version``: when its folder was there, and when it alone was served, on the loop's clock."""

    version: int
    began: float
    ended: float = math.nan


async def swap(plan: Plan) -> list[Report]:
    """Swap versions at 80 % of the capacity. A version's labels end with its number, so each answer shows its own."""
    async with plan.server() as server:
        rate = await server.capacity(plan.model)
    with tempfile.TemporaryDirectory() as folder:
        copied = plan.models[plan.model].folder.resolve()
        _write(copied, Path(folder), plan.model, 1)
        settings = plan.settings.model_copy(update={"model_repository": Path(folder), "poll_interval_ms": _POLL_MS})
        async with dataclasses.replace(plan, settings=settings).server() as server:
            swapping = asyncio.create_task(_swap_all(server, copied, Path(folder)))
            runs: list[Run] = []
            while not swapping.done():
                seconds = plan.seconds(20)
                arrivals = poisson(0.8 * rate, seconds, len(runs))
                runs.append(await server.open_loop(server.workload(plan.model, numbered=True), arrivals, seconds))
            swaps = swapping.result()
    run = Run.of_all(runs)
    during, calm = _latencies(run, swaps)
    after = [_resident(run, one, following) for one, following in zip(swaps, [*swaps[1:], None], strict=True)]
    fifth = max(1, len(after) // 5)
    growth = statistics.mean(after[-fifth:]) / statistics.mean(after[:fifth]) - 1
    bars = [
        Bar("swaps", len(swaps), 2 if plan.quick else 20, at_least=True),
        Bar("p99 during swaps over p99 between them", percentile(during, 99) / percentile(calm, 99), 2),
        Bar("answers of a version that was not served", len(_misplaced(run.outcomes, swaps)), 0),
        Bar("memory after the last swaps over that after the first, growth", growth, 0.05),
        Bar("requests unanswered", len(run.of("unanswered")), 0),
        Bar("answers wrong or failed", len(run.of("wrong", "failed")), 0),
    ]
    figures = {
        "capacity_per_s": rate,
        "swap_s_median": statistics.median(one.ended - one.began for one in swaps),
        "during_p99_ms": percentile(during, 99) * 1e3,
        "between_p99_ms": percentile(calm, 99) * 1e3,
    }
    return [Report("swap", run.figures() | figures, bars, run.plots())]


async def _swap_all(server: UnderLoad, copied: Path, repository: Path) -> list[Swap]:
    loop, swaps = asyncio.get_running_loop(), list[Swap]()
    for version in range(2, 4 if server.plan.quick else 22):
        await asyncio.sleep(_CALM_S)
        await asyncio.to_thread(_write, copied, repository, server.plan.model, version)
        swaps.append(Swap(version, loop.time()))
        while await _versions(server) != [version]:  # noqa: ASYNC110 - another process tells it only when asked
            await asyncio.sleep(0.05)
        swaps[-1].ended = loop.time()
        await asyncio.to_thread(shutil.rmtree, repository / server.plan.model / str(version - 1))
        log.info("version %d is served, %.1f s after its folder was there", version, swaps[-1].ended - swaps[-1].began)
    await asyncio.sleep(_CALM_S)
    return swaps


async def _versions(server: UnderLoad) -> list[int]:
    found = json.loads(await get(server.running.address, "/models"))["models"]
    return [info["version"] for info in found if info["name"] == server.plan.model]


def _write(copied: Path, repository: Path, name: str, version: int) -> None:
    """Copy a version under another number, with labels that end with the number. Its weights are links."""
    part = repository / name / f".{version}"
    shutil.copytree(copied, part, ignore=shutil.ignore_patterns("*.onnx*"))
    for file in copied.glob("*.onnx*"):
        (part / file.name).symlink_to(file)
    manifest = json.loads((part / "manifest.json").read_text())
    labels = part / manifest["labels"]["file"]
    labels.write_text("".join(f"{label} {version}\n" for label in labels.read_text().splitlines()))
    manifest["labels"]["sha256"] = hashlib.sha256(labels.read_bytes()).hexdigest()
    for best in (best for sample in manifest["golden"] for best in sample["top_k"]):
        best["label"] += f" {version}"
    (part / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    part.rename(part.with_name(str(version)))


def _latencies(run: Run, swaps: Sequence[Swap]) -> tuple[list[float], list[float]]:
    """Return the latencies of accepted requests that were sent during a swap, and of the others."""
    during, calm = list[float](), list[float]()
    for outcome in run.of("right", "wrong", "expired", "failed"):
        swapped = any(one.began <= outcome.finished and outcome.intended <= one.ended for one in swaps)
        (during if swapped else calm).append(outcome.latency)
    return during, calm


def _misplaced(outcomes: Sequence[Outcome], swaps: Sequence[Swap]) -> list[Outcome]:
    """Return the answers of a version before its folder was there, or sent after the next version had replaced it."""
    began = {1: -math.inf} | {one.version: one.began for one in swaps}
    replaced = {one.version - 1: one.ended for one in swaps}
    return [
        outcome
        for outcome in outcomes
        if outcome.version is not None
        and not (outcome.finished >= began[outcome.version] and outcome.sent <= replaced.get(outcome.version, math.inf))
    ]


def _resident(run: Run, one: Swap, following: Swap | None) -> float:
    """Return the server's mean resident bytes from the end of a swap to the next swap."""
    until = math.inf if following is None else following.began
    return statistics.mean(size for time, size in run.memory if one.ended < time < until)
