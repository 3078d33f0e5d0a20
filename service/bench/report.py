"""The figures of a bench as text, as JSON, and as a page with bars."""

from __future__ import annotations

import html
import json
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from service.bench.idle import Idle
from service.bench.limits import FLOAT, Limits
from service.bench.over_http import CLIENTS, OverHttp, Start
from service.settings import available_cpus

_STYLE = """
body { font: 15px system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
pre { white-space: pre-wrap }
table { width: 100%; border-spacing: 6px 3px }
th { text-align: left; font-weight: normal; width: 19rem }
td:nth-child(2) { text-align: right; width: 4rem }
td div { background: #4878a8; height: 1.1em }
"""


@dataclass(frozen=True)
class Report:
    """All that was measured; ``idle`` is by model."""

    limits: Sequence[Limits]
    starts: Sequence[Start]
    idle: Mapping[str, Idle]
    over_http: Sequence[OverHttp]

    def table(self) -> str:
        """Return the figures as text."""
        lines = [*self._starts(), ""]
        for limits in self.limits:
            lines += [*_limits(limits), *_idle(self.idle[limits.model]), ""]
        for served in self.over_http:
            lines += [*_over_http(served), ""]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write ``bench.json`` and ``bench.html``."""
        folder.mkdir(parents=True, exist_ok=True)
        figures = {"machine": machine()} | asdict(self)
        for limits, entry in zip(self.limits, figures["limits"], strict=True):
            entry |= {"session_over_float": limits.session_over_float, "fast_over_exact": limits.fast_over_exact}
        for served, entry in zip(self.over_http, figures["over_http"], strict=True):
            entry |= {name: getattr(served, name) for name in ("service_over_offline", "service_over_plain", "spread")}
        (folder / "bench.json").write_text(json.dumps(figures, indent=2) + "\n")
        (folder / "bench.html").write_text(self._page())

    def _starts(self) -> list[str]:
        seconds = ", ".join(f"{start.ready_s:.1f}" for start in self.starts)
        memory = _memory(start.peak_mb for start in self.starts)
        return [f"all models: ready {seconds} s after a start, by then {memory}"]

    def _page(self) -> str:
        plots = []
        for limits in self.limits:
            rates = {
                f"{way}, batch {size}": rate
                for way, by_size in sorted(limits.session_per_s.items())
                for size, rate in sorted(by_size.items())
            }
            plots += [
                _bars(f"{limits.model}: session alone, images/s", rates),
                _bars(
                    f"{limits.model}: decoding an image, ms of a core", {k: s * 1e3 for k, s in limits.decode_s.items()}
                ),
            ]
        for served in self.over_http:
            limit, ours, plain = (statistics.median(rates) for rates in _alternated(served))
            name = f"{served.model}, {served.served}"
            plots += [
                _bars(f"{name}: images/s", {"without HTTP": limit, "service": ours, "plain server": plain}),
                _bars(f"{name}: images/s by clients", {str(n): rate.per_s for n, rate in served.by_clients.items()}),
                _bars(f"{name}: p99 by clients, ms", {str(n): rate.p99_ms for n, rate in served.by_clients.items()}),
                _bars(f"{name}: images/s by size of photo", {n: rate.per_s for n, rate in served.by_photo.items()}),
            ]
        about = html.escape(f"{self.table()}\n{json.dumps(machine())}")
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Inferception: bench</title>'
            f"<style>{_STYLE}</style><h1>Inferception: bench</h1>{''.join(plots)}<pre>{about}</pre></html>\n"
        )


def machine() -> dict[str, object]:
    """Return what the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cpus": available_cpus(), "system": platform.platform()}


def _limits(limits: Limits) -> list[str]:
    lines = [f"{limits.model} version {limits.version}, served in {limits.served}"]
    for way, rates in limits.session_per_s.items():
        by_batch = ", ".join(f"{rate:.1f} in batches of {batch}" for batch, rate in sorted(rates.items()))
        ratio = f"; {limits.session_over_float[way]:.2f} times {FLOAT}" if limits.session_over_float else ""
        lines.append(f"  session, {way}: images/s {by_batch}{ratio}")
    lines += [f"  decoding beside it, {way}: {rate:.1f} images/s" for way, rate in limits.offline_per_s.items()]
    times = ", ".join(f"{how} {seconds * 1e3:.1f}" for how, seconds in limits.decode_s.items())
    return [*lines, f"  decoding an image: {times} ms of a core; {limits.fast_over_exact:.2f} of the time"]


def _idle(idle: Idle) -> list[str]:
    return [
        f"  idle: p50 {idle.p50:.1f} ms, p99 {idle.p99:.1f} ms over HTTP; a request takes "
        f"{idle.p50_more_than_in_process:+.2f} ms more than the {idle.p50_in_process:.1f} in process, "
        f"{idle.p50_more_than_at_work:+.2f} ms more than the server's own decoding and inference"
    ]


def _over_http(served: OverHttp) -> list[str]:
    limit, ours, plain = (statistics.median(rates) for rates in _alternated(served))
    worst = min(rate.as_in_process for rate in [*served.by_clients.values(), *served.by_photo.values()])
    return [
        f"{served.model}, {served.served}: {ours:.1f} images/s over HTTP, {CLIENTS} clients",
        f"  {served.service_over_offline:.1%} of the {limit:.1f} that decoding and inference alone give",
        f"  {served.service_over_plain:.2f} times the plain server's {plain:.1f}",
        f"  as many and more clients: within {served.spread:.1%}",
        f"  first labels as without HTTP: {worst:.1%}",
        *(f"  {name}, {CLIENTS} clients: {_memory([size])}" for name, size in served.peak_mb.items()),
        *(
            f"  {n:>4} clients: {rate.per_s:.1f}/s, p50 {rate.p50_ms:.0f} ms, p99 {rate.p99_ms:.0f} ms"
            for n, rate in served.by_clients.items()
        ),
        *(f"  photos of {side}: {rate.per_s:.1f}/s" for side, rate in served.by_photo.items()),
    ]


def _memory(peaks_mb: Iterable[float | None]) -> str:
    known = [peak for peak in peaks_mb if peak is not None]
    return f"at most {max(known):.0f} MB resident" if known else "memory unknown"


def _alternated(served: OverHttp) -> tuple[list[float], list[float], list[float]]:
    return served.offline_per_s, served.service_per_s, served.plain_per_s


def _bars(title: str, values: Mapping[str, float]) -> str:
    """Return a plot of bars from zero, as HTML."""
    most = max(values.values())
    rows = (
        f'<tr><th>{html.escape(name)}<td>{value:.1f}<td><div style="width:{100 * value / most:.1f}%"></div>'
        for name, value in values.items()
    )
    return f"<h2>{html.escape(title)}</h2><table>{''.join(rows)}</table>"
