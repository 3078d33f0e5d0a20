"""What a run amounts to: figures, bars that are met or not, a JSON file and a plot.

A percentile is a latency that somebody had (nearest rank, nothing interpolated). Of nothing it is NaN, and NaN meets
no bar.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from tests.load.client import Kind, Outcome

COLOURS: dict[Kind, str] = {
    "right": "tab:green",
    "refused": "tab:blue",
    "expired": "tab:orange",
    "wrong": "tab:purple",
    "failed": "tab:brown",
    "unanswered": "tab:red",
    "vanished": "tab:grey",
}


@dataclass(frozen=True)
class Bar:
    """A figure and the limit that it must keep, from below unless ``at_least``."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Run:
    """One stream of requests. Times are on the event loop's clock; requests were meant for ``start`` to ``end``.

    ``memory`` holds (time, resident bytes of the server); ``deadline_s`` is each request's.
    """

    start: float
    end: float
    deadline_s: float
    outcomes: list[Outcome]
    memory: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def of_all(cls, runs: Sequence[Run]) -> Run:
        """Return several runs, one after another, as one."""
        outcomes, memory = [o for run in runs for o in run.outcomes], [m for run in runs for m in run.memory]
        return cls(runs[0].start, runs[-1].end, runs[0].deadline_s, outcomes, memory)

    def of(self, *kinds: Kind) -> list[Outcome]:
        """Return the outcomes of these kinds."""
        return [outcome for outcome in self.outcomes if outcome.kind in kinds]

    def goodput(self) -> float:
        """Return right answers within their deadline a second, by when they came.

        Answers fade in over the first tenth, in which the queue fills, and out over the last: they come in batches,
        and whether one more batch fell just inside must not matter. What comes while the queue empties doesn't count.
        """
        fade = (self.end - self.start) / 10
        times = [o.finished for o in self.of("right") if o.latency <= self.deadline_s]
        weights = (min(1.0, (time - self.start) / fade, (self.end - time) / fade) for time in times)
        return sum(max(0.0, weight) for weight in weights) / (self.end - self.start - fade)

    def accepted(self) -> list[float]:
        """Return the latencies of all that was neither refused nor given up: an expired request was accepted."""
        return [o.latency for o in self.of("right", "wrong", "expired", "failed")]

    def refused(self) -> list[float]:
        """Return the latencies of the refusals."""
        return [o.latency for o in self.of("refused")]

    def resident(self, since: float, until: float) -> float:
        """Return the mean resident bytes between two shares (0 to 1) of the run."""
        span = self.end - self.start
        window = [size for time, size in self.memory if since <= (time - self.start) / span <= until]
        return sum(window) / len(window) if window else math.nan

    def growth(self) -> float:
        """Return by which share resident memory grew from the middle third of the run to the last."""
        return self.resident(2 / 3, 1) / self.resident(1 / 3, 2 / 3) - 1

    def figures(self) -> dict[str, float]:
        """Return what any run is described by, milliseconds and megabytes."""
        accepted, refused = self.accepted(), self.refused()
        lag = [o.sent - o.intended for o in self.outcomes if not math.isnan(o.sent)]
        errors = Counter(f"error_{o.error}" for o in self.outcomes if o.error)
        kinds = Counter[str](o.kind for o in self.outcomes)
        return {
            "seconds": self.end - self.start,
            "offered_per_s": len(self.outcomes) / (self.end - self.start),
            "goodput_per_s": self.goodput(),
            **{kind: kinds[kind] for kind in COLOURS},
            **errors,
            **{f"accepted_p{p}_ms": percentile(accepted, p) * 1e3 for p in (50, 90, 99)},
            "refused_p99_ms": percentile(refused, 99) * 1e3,
            "client_lag_p99_ms": percentile(lag, 99) * 1e3,
            "resident_peak_mb": max((size for _, size in self.memory), default=math.nan) / 1e6,
        }


@dataclass
class Report:
    """A scenario's result."""

    name: str
    run: Run
    bars: list[Bar]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(bar.met for bar in self.bars)

    def table(self) -> str:
        """Return the bars, a line each, and then the figures."""
        rows = [
            f"  {'PASS' if bar.met else 'FAIL'}  {bar.name:<58} {bar.value:>10.3f}  {'>=' if bar.at_least else '<='} "
            f"{bar.limit:.3f}"
            for bar in self.bars
        ]
        facts = [f"{name} {value:.4g}" for name, value in self._all_figures().items()]
        lines = [", ".join(facts[i : i + 5]) for i in range(0, len(facts), 5)]
        return "\n".join([self.name, *rows, *(f"        {line}" for line in lines)])

    def write(self, folder: Path, about: dict[str, object]) -> None:
        """Write ``<name>.json`` and ``<name>.png``; ``about`` says what was measured."""
        folder.mkdir(parents=True, exist_ok=True)
        bars = [asdict(bar) | {"met": bar.met} for bar in self.bars]
        content = {"scenario": self.name, "passed": self.passed, "bars": bars, "figures": self._all_figures()} | about
        (folder / f"{self.name}.json").write_text(json.dumps(_without_nan(content), indent=2) + "\n")
        self._plot().savefig(folder / f"{self.name}.png", dpi=100)

    def _all_figures(self) -> dict[str, float]:
        return self.run.figures() | self.figures

    def _plot(self) -> Figure:
        run = self.run
        figure = Figure(figsize=(10, 9), layout="constrained")
        latency, throughput, memory = figure.subplots(3, sharex=True)
        figure.suptitle(f"{self.name}: {'passed' if self.passed else 'FAILED'}")
        bins = [float(second) for second in range(math.ceil(_last(run) - run.start) + 1)]
        for kind, colour in COLOURS.items():
            if some := run.of(kind):
                finished = [o.finished - run.start for o in some]
                times, latencies = [o.intended - run.start for o in some], [o.latency for o in some]
                latency.scatter(times, latencies, 6, colour, label=kind)
                throughput.hist(finished, bins, histtype="step", color=colour, label=kind)
        latency.axhline(run.deadline_s, color="black", linewidth=0.5, label="deadline")
        latency.set(ylabel="latency, s (by intended time)", yscale="log")
        latency.legend(loc="upper right", fontsize="small")
        throughput.set(ylabel="answers per second")
        memory.plot([time - run.start for time, _ in run.memory], [size / 1e6 for _, size in run.memory], color="black")
        memory.margins(y=0.1)
        memory.set(ylabel="server's resident MB", xlabel="seconds", ylim=0)
        return figure


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest of ``values`` that at least ``percent`` of them do not exceed; NaN of no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.nan


def one_by_one(arrivals: Sequence[float], service_s: float) -> list[float]:
    """Return the latencies if one server took exactly ``service_s`` for each, in order (Lindley's recursion).

    For Poisson arrivals that is the M/D/1 queue: what no server without gain from batching can beat.
    """
    latencies, free = [], 0.0
    for arrival in arrivals:
        free = max(free, arrival) + service_s
        latencies.append(free - arrival)
    return latencies


def _last(run: Run) -> float:
    return max([run.end, *(o.finished for o in run.outcomes)])


def _without_nan(value: object) -> object:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
