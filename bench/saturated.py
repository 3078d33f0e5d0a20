"""The rate of a saturated server over HTTP, beside the rate without HTTP and the rate of a plain server."""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from PIL import Image

from bench import server
from bench.in_process import as_served
from bench.limits import OFFLINE_S, offline_rate
from bench.plots import BarChart
from bench.report import Report
from bench.repository import Model, Photo, only
from bench.timing import percentile
from bench.traffic import closed_loop
from bench.workload import Workload
from service.settings import Settings

log = logging.getLogger("bench")

CLIENTS = 16  # enough to fill the largest batch and the next one
ALTERNATIONS = 5
MANY_CLIENTS = (1, 4, CLIENTS, 64, 256)
SIDES = ((375, 500), (750, 1000), (1500, 2000), (3000, 4000))


@dataclass(frozen=True)
class Rate:
    """The results of clients that each send one request after another.

    ``as_in_process`` is the share of answers whose first label equals the session's answer without HTTP.
    """

    images_per_s: float
    p50_ms: float
    p99_ms: float
    as_in_process: float


def measure(model: Model, settings: Settings, *, quick: bool = False) -> Report:
    """Saturate a server that has only this model: clients send the next request as soon as an answer comes.

    Raises StartupError or InvalidManifest, and RuntimeError if a request gets no answer with status 200.
    """
    alternations, seconds = (1, 0.4) if quick else (ALTERNATIONS, OFFLINE_S)
    counts, sides = (MANY_CLIENTS[:3:2], SIDES[:1]) if quick else (MANY_CLIENTS, SIDES)
    local, most = as_served(model, settings), max(counts)
    photos = local.labelled([photo.data for photo in model.photos])
    bodies = most * max(len(photo.data) for photo in photos)
    with (
        only(model) as repository,
        server.service(
            settings,
            model_repository=repository,
            default_model=None,
            # The server takes the device and precision chosen above instead of choosing again.
            device=local.placement.device,
            precision=local.placement.precision,
            # All clients may wait. With the default queue of 64, the server would refuse the clients beyond it.
            max_queue_size=max(settings.max_queue_size, most),
            max_body_bytes_in_flight=max(settings.max_body_bytes_in_flight, bodies),
        ) as service,
        server.plain(model.folder) as plain,
    ):
        ask = functools.partial(ask_together, model=model.name, timeout_ms=settings.max_timeout_ms, seconds=seconds)
        rates: dict[str, list[float]] = {"without_http": [], "service": [], "plain_server": []}
        for number in range(alternations):
            log.info("%s: limit, service, plain server in turn, %d of %d", model.name, number + 1, alternations)
            rates["without_http"].append(offline_rate(local, seconds))
            rates["service"].append(ask(service.address, photos, CLIENTS).images_per_s)
            rates["plain_server"].append(ask(plain.address, photos, CLIENTS).images_per_s)
        peaks = {"service": service.peak_mb(), "plain_server": plain.peak_mb()}
        by_clients, by_photo = dict[int, Rate](), dict[str, Rate]()
        for clients in counts:
            log.info("%s: %d clients", model.name, clients)
            by_clients[clients] = ask(service.address, photos, clients)
        for width, height in sides:
            log.info("%s: photos of %dx%d", model.name, width, height)
            resized = local.labelled([_resized(photo.data, width, height) for photo in photos])
            by_photo[f"{width}x{height}"] = ask(service.address, resized, CLIENTS)
    figures: dict[str, object] = {
        "served": str(local),
        "images_per_s": rates,
        "service_over_limit": _ratio(rates["service"], rates["without_http"]),
        "service_over_plain_server": _ratio(rates["service"], rates["plain_server"]),
        "spread_with_as_many_and_more_clients": _spread(by_clients),
        "peak_mb": peaks,
        "by_clients": {clients: asdict(rate) for clients, rate in by_clients.items()},
        "by_photo": {side: asdict(rate) for side, rate in by_photo.items()},
    }
    charts = [
        BarChart(f"images/s, {CLIENTS} clients", {name: statistics.median(each) for name, each in rates.items()}),
        BarChart("images/s by clients", {str(n): rate.images_per_s for n, rate in by_clients.items()}),
        BarChart("p99 by clients, ms", {str(n): rate.p99_ms for n, rate in by_clients.items()}),
        BarChart("images/s by size of photo", {side: rate.images_per_s for side, rate in by_photo.items()}),
    ]
    return Report(model.name, figures, plots=charts)


def ask_together(
    address: tuple[str, int], photos: Sequence[Photo], clients: int, *, model: str, timeout_ms: int, seconds: float
) -> Rate:
    """Return the rate of ``clients`` that send one request after another. Raises RuntimeError if one gets no answer."""
    workload = Workload(address, photos, model, timeout_ms, patience_s=2 * timeout_ms / 1e3)
    asyncio.run(closed_loop(workload, clients, seconds / 8))  # until the server has allocated its memory
    outcomes = asyncio.run(closed_loop(workload, clients, seconds))
    if lost := [outcome for outcome in outcomes if outcome.kind not in ("right", "wrong")]:
        raise RuntimeError(f"{len(lost)} of {len(outcomes)} requests got no answer, the first: {lost[0]}")
    span = max(outcome.finished for outcome in outcomes) - min(outcome.sent for outcome in outcomes)
    p50, p99 = (percentile((outcome.latency for outcome in outcomes), percent) * 1e3 for percent in (50, 99))
    return Rate(len(outcomes) / span, p50, p99, statistics.mean(outcome.right for outcome in outcomes))


def _resized(photo: bytes, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").resize((width, height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over the alternations of the ratio of two rates."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def _spread(by_clients: dict[int, Rate]) -> float:
    """Return the share by which the best rate exceeds the worst, among the rates with at least ``CLIENTS`` clients."""
    rates = [rate.images_per_s for clients, rate in by_clients.items() if clients >= CLIENTS]
    return max(rates) / min(rates) - 1 if rates else math.nan
