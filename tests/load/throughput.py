"""``python -m tests.load.throughput``: how fast the service is, beside what this machine can do and a plain server.

Prints the figures, and writes them to reports/throughput.json and, with plots, to reports/throughput.html.
"""

from __future__ import annotations

import asyncio
import base64
import html
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from export.photos import Photo, labelled_photos
from service.bench import offline_rate
from service.manifest import read_manifest
from service.placement import place
from service.settings import Settings
from tests.load.bench import CLIENTS, UNHURRIED_MS, resident_bytes
from tests.load.client import Sample, Workload
from tests.load.idle import measure
from tests.load.open_loop import closed_loop
from tests.load.report import machine, percentile
from tests.server import Server, connected, following, serving

FLOAT = "fp32 on cpu"  # what all else is compared with
MODEL = os.environ.get("INFERCEPTION_DEFAULT_MODEL", "xception")
ALTERNATIONS = 3
SECONDS = 8.0
MANY_CLIENTS = (1, 4, 16, 64, 256)
SIDES = ((375, 500), (750, 1000), (1500, 2000), (3000, 4000))
REPORTS = Path("reports")


def main() -> None:
    """Measure and report."""
    repository = Path(os.environ.get("INFERCEPTION_MODEL_REPOSITORY", "model_repository"))
    photos = labelled_photos()
    figures: dict[str, Any] = {"machine": machine(), "model": MODEL}
    figures["limits"] = _limits(repository, photos)
    with tqdm(total=len(MANY_CLIENTS) + len(SIDES) + 3 * ALTERNATIONS + 1, desc="over HTTP") as progress:
        figures |= _over_http(repository, photos, progress)
    for beside in ("offline", "plain"):
        figures[f"service_over_{beside}"] = statistics.median(
            ours / theirs for ours, theirs in zip(figures["service_per_s"], figures[f"{beside}_per_s"], strict=True)
        )
    many = [rate for clients, rate in figures["per_s_by_clients"].items() if clients >= CLIENTS]
    figures["spread_16_to_256_clients"] = max(many) / min(many) - 1
    for limits in figures["limits"]:
        if whole := limits["session_per_s"].get(FLOAT):  # a GPU runs fp16 alone
            largest = max(whole, key=int)
            limits["session_over_float"] = {
                way: rates[largest] / whole[largest] for way, rates in limits["session_per_s"].items()
            }
        limits["fast_over_exact_decode"] = limits["decode_s"]["fast"] / limits["decode_s"]["exact"]
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "throughput.json").write_text(json.dumps(figures, indent=2) + "\n")
    (REPORTS / "throughput.html").write_text(_page(figures))
    print("\n".join(_lines(figures)))
    print("reports in reports/throughput.json and reports/throughput.html")


def _limits(repository: Path, photos: Sequence[Photo]) -> list[dict[str, Any]]:
    """Run ``python -m service bench``, in a process that leaves no memory or thread behind."""
    with tempfile.TemporaryDirectory() as folder:
        for photo in photos:
            (Path(folder) / f"{photo.name}.jpg").write_bytes(photo.data)
        file = Path(folder) / "limits.json"
        command = [sys.executable, "-m", "service", "bench", "--photos", folder, "--json", str(file)]
        # Settings are the defaults, as the service's are.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERCEPTION_")}
        subprocess.run([*command, "--model-repository", str(repository)], env=environment, check=True)  # noqa: S603
        limits: list[dict[str, Any]] = json.loads(file.read_text())
    return limits


def _over_http(repository: Path, photos: Sequence[Photo], progress: tqdm[Any]) -> dict[str, Any]:
    samples = [Sample(photo.data, photo.label) for photo in photos]
    files = [photo.data for photo in photos]
    folder = repository / MODEL / "1"
    manifest, settings = read_manifest(folder), Settings()
    offline = place(folder, manifest, settings)
    with (
        _only(repository, MODEL) as only,
        # All clients may wait: by default those beyond 64 would be told to come back later.
        serving(only, max_queue_size=MANY_CLIENTS[-1]) as service,
        plain_server(only / MODEL / "1") as plain,
    ):
        with connected(service) as connection:
            idle = measure(connection, folder, files, "idle")
        progress.update()
        by_clients, offline_rates, service_rates, plain_rates, by_side = {}, [], [], [], {}
        for clients in MANY_CLIENTS:
            by_clients[clients] = _rate(service, samples, clients)
            progress.update()
        for _ in range(ALTERNATIONS):
            offline_rates.append(offline_rate(offline, manifest, files, settings))
            service_rates.append(_rate(service, samples, CLIENTS)["per_s"])
            plain_rates.append(_rate(plain, samples, CLIENTS)["per_s"])
            progress.update(3)
        for side in SIDES:
            resized = [Sample(_resized(sample.data, *side), sample.label) for sample in samples]
            by_side["x".join(map(str, side))] = _rate(service, resized, CLIENTS)["per_s"]
            progress.update()
        resident = {"service": resident_bytes(service.process.pid), "plain": resident_bytes(plain.process.pid)}
    return {
        "served": str(offline),
        "idle_ms": {
            "p50": statistics.median(t.over_http for t in idle),
            "p99": percentile([t.over_http for t in idle], 99),
            "p50_in_process": statistics.median(t.in_process for t in idle),
            "p50_more_than_in_process": statistics.median(t.over_http - t.in_process for t in idle),
        },
        "per_s_by_clients": {clients: rate["per_s"] for clients, rate in by_clients.items()},
        "p50_ms_by_clients": {clients: rate["p50_ms"] for clients, rate in by_clients.items()},
        "p99_ms_by_clients": {clients: rate["p99_ms"] for clients, rate in by_clients.items()},
        "offline_per_s": offline_rates,
        "service_per_s": service_rates,
        "plain_per_s": plain_rates,
        "per_s_by_photo": by_side,
        "resident_mb": {name: (size or 0) / 1e6 for name, size in resident.items()},
    }


@contextmanager
def _only(repository: Path, model: str) -> Iterator[Path]:
    """Yield a repository that holds this model alone."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / model).symlink_to((repository / model).resolve())
        yield Path(folder)


@contextmanager
def plain_server(folder: Path) -> Iterator[Server]:
    """Start ``tests.load.plain_server`` on a model's version folder; stop it."""
    command = [sys.executable, "-m", "tests.load.plain_server", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603
    with following(process) as server:
        yield server


def _rate(server: Server, samples: Sequence[Sample], clients: int) -> dict[str, float]:
    """Return right answers a second to ``clients`` that ask one request after another, and their latencies."""
    workload = Workload(server.url, samples, MODEL, timeout_ms=UNHURRIED_MS, patience_s=2 * UNHURRIED_MS / 1e3)
    asyncio.run(closed_loop(workload, clients, 1.0))  # until batches are full
    outcomes = asyncio.run(closed_loop(workload, clients, SECONDS))
    if wrong := [o for o in outcomes if not o.right]:
        raise RuntimeError(f"{len(wrong)} of {len(outcomes)} answers are not right, the first is {wrong[0]}")
    seconds = max(o.finished for o in outcomes) - min(o.intended for o in outcomes)
    latencies = [o.latency for o in outcomes]
    return {
        "per_s": len(outcomes) / seconds,
        "p50_ms": percentile(latencies, 50) * 1e3,
        "p99_ms": percentile(latencies, 99) * 1e3,
    }


def _resized(photo: bytes, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").resize((width, height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _lines(figures: dict[str, Any]) -> list[str]:
    service, offline, plain = (statistics.median(figures[f"{name}_per_s"]) for name in ("service", "offline", "plain"))
    idle = figures["idle_ms"]
    lines = [
        f"{figures['model']}, {figures['served']}: {service:.1f} images/s over HTTP, {CLIENTS} clients",
        f"  {figures['service_over_offline']:.1%} of the {offline:.1f} that decoding and inference alone give",
        f"  {figures['service_over_plain']:.2f} times the plain server's {plain:.1f}",
        f"  from {CLIENTS} to {MANY_CLIENTS[-1]} clients within {figures['spread_16_to_256_clients']:.1%}",
        f"  idle: p50 {idle['p50']:.1f} ms, p99 {idle['p99']:.1f} ms; {idle['p50_more_than_in_process']:+.2f} ms more "
        "than decoding and inference in process",
        *(f"  resident: {name} {size:.0f} MB" for name, size in figures["resident_mb"].items()),
        *(f"  {clients:>4} clients: {rate:.1f}/s, p99 {figures['p99_ms_by_clients'][clients]:.0f} ms"
          for clients, rate in figures["per_s_by_clients"].items()),
        *(f"  photos of {side}: {rate:.1f}/s" for side, rate in figures["per_s_by_photo"].items()),
    ]  # fmt: skip
    for limits in figures["limits"]:
        lines.append(f"{limits['model']}: fast over exact decoding: {limits['fast_over_exact_decode']:.2f}")
        for way, ratio in limits.get("session_over_float", {}).items():
            lines.append(f"  session, {way} over {FLOAT}: {ratio:.2f}")
    return lines


def _page(figures: dict[str, Any]) -> str:
    figure = Figure(figsize=(11, 8), layout="constrained")
    (clients, sides), (sessions, servers) = figure.subplots(2, 2)
    clients.plot(list(figures["per_s_by_clients"]), list(figures["per_s_by_clients"].values()), marker="o")
    clients.set(xscale="log", xlabel="clients", ylabel="images/s", title="over HTTP, by clients", ylim=0)
    sides.bar(list(figures["per_s_by_photo"]), list(figures["per_s_by_photo"].values()))
    sides.set(xlabel="pixels of the JPEG", title="over HTTP, by size of photo")
    for limit in figures["limits"]:
        for way, rates in limit["session_per_s"].items():
            sessions.plot(list(map(int, rates)), list(rates.values()), "o-", label=f"{limit['model']}, {way}")
    sessions.set(xlabel="batch", ylabel="images/s", title="session alone", ylim=0)
    sessions.legend(fontsize="small")
    bars = {name: statistics.median(figures[f"{name}_per_s"]) for name in ("offline", "service", "plain")}
    servers.bar(list(bars), list(bars.values()))
    servers.set(title="limit, service, plain server")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    encoded = base64.b64encode(picture.getvalue()).decode()
    text = html.escape("\n".join([*_lines(figures), "", json.dumps(figures["machine"])]))
    return (
        f'<!doctype html><meta charset="utf-8"><title>Inferception: throughput</title>'
        f'<pre>{text}</pre><img src="data:image/png;base64,{encoded}" alt="throughput">\n'
    )


if __name__ == "__main__":
    main()
