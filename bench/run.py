"""A series of requests and its results: goodput, latencies, the server's memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.plots import Curves
from bench.timing import percentile
from bench.workload import Kind, Outcome

COLOURS: dict[str, str] = {
    "right": "tab:green",
    "refused": "tab:blue",
    "expired": "tab:orange",
    "wrong": "tab:purple",
    "failed": "tab:brown",
    "unanswered": "tab:red",
    "vanished": "tab:grey",
}


@dataclass
class Run:
    """One series of requests, planned from ``start`` to ``end``. Times are seconds on the event loop's clock.

    ``memory`` holds pairs of a time and the server's resident bytes. ``deadline_s`` is the deadline of each request.
    """

    start: float
    end: float
    deadline_s: float
    outcomes: list[Outcome]
    memory: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def of_all(cls, runs: Sequence[Run]) -> Run:
        """Return several consecutive runs as one run."""
        outcomes, memory = [o for run in runs for o in run.outcomes], [m for run in runs for m in run.memory]
        return cls(runs[0].start, runs[-1].end, runs[0].deadline_s, outcomes, memory)

    def of(self, *kinds: Kind) -> list[Outcome]:
        """Return the outcomes of these kinds."""
        return [outcome for outcome in self.outcomes if outcome.kind in kinds]

    def goodput(self) -> float:
        """Return the right answers a second that came within their deadline, counted at the time of the answer.

        The weight of an answer rises over the first tenth of the run, in which the queue fills, and falls over the last
        tenth. Answers come in batches, and the weights keep the result independent of whether one more batch ends
        just inside the run. Answers after the end, while the queue empties, don't count.
        """
        fade = (self.end - self.start) / 10
        times = [o.finished for o in self.of("right") if o.latency <= self.deadline_s]
        weights = (min(1.0, (time - self.start) / fade, (self.end - time) / fade) for time in times)
        return sum(max(0.0, weight) for weight in weights) / (self.end - self.start - fade)

    def accepted(self) -> list[float]:
        """Return the latencies of all answers but refusals. An expired request counts, because it was accepted."""
        return [o.latency for o in self.of("right", "wrong", "expired", "failed")]

    def refused(self) -> list[float]:
        """Return the latencies of the refusals."""
        return [o.latency for o in self.of("refused")]

    def resident(self, since: float, until: float) -> float:
        """Return the server's mean resident bytes in a part of the run; ``since`` and ``until`` are shares, 0 to 1."""
        span = self.end - self.start
        window = [size for time, size in self.memory if since <= (time - self.start) / span <= until]
        return sum(window) / len(window) if window else math.nan

    def growth(self) -> float:
        """Return the growth of resident memory from the middle third of the run to the last third, as a share."""
        return self.resident(2 / 3, 1) / self.resident(1 / 3, 2 / 3) - 1

    def figures(self) -> dict[str, float]:
        """Return the figures that describe any run, in seconds, milliseconds (ms) and megabytes (mb)."""
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

    def plots(self) -> list[Curves]:
        """Return plots of latencies, answers per second, and the server's memory, over the run."""
        by_kind = {kind: [o for o in self.outcomes if o.kind == kind] for kind in COLOURS}
        latency = {kind: [(o.intended - self.start, o.latency) for o in some] for kind, some in by_kind.items() if some}
        answers = {kind: _by_second([o.finished - self.start for o in some]) for kind, some in by_kind.items() if some}
        memory = [(time - self.start, size / 1e6) for time, size in self.memory]
        return [
            Curves("latency, s, by intended time; the line is the deadline", latency, "dots", COLOURS, self.deadline_s),
            Curves("answers per second", answers, "steps", COLOURS),
            Curves("server's resident MB", {"memory": memory}),
        ]


def one_by_one(arrivals: Sequence[float], service_s: float) -> list[float]:
    """Return the latencies if a server took exactly ``service_s`` per request, in order (Lindley's recursion).

    For Poisson arrivals this is the M/D/1 queue. No server that gains nothing from batching can beat these latencies.
    """
    latencies, free = [], 0.0
    for arrival in arrivals:
        free = max(free, arrival) + service_s
        latencies.append(free - arrival)
    return latencies


def _by_second(times: Sequence[float]) -> list[tuple[float, float]]:
    """Return the number of ``times``, in seconds from the start, that fall into each second."""
    counts = Counter(int(time) for time in times)
    return [(float(second), float(counts[second])) for second in range(max(counts) + 2)]
