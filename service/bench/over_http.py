"""What the service gives over HTTP, beside decoding and inference alone and beside a plain server."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.bench import idle, limits
from service.bench.client import classify_request, keep_asking
from service.bench.idle import Idle
from service.bench.server import Server, running
from service.budget import Budget
from service.inference.image import decode
from service.inference.manifest import Manifest, read_labels, read_manifest
from service.inference.placement import Placement, place
from service.settings import Settings

log = logging.getLogger("inferception")

SERVERS = 3  # where a process' memory lies moves its speed by a percent: more than an idle request's overhead
ALTERNATIONS = 5
SECONDS = 8.0
CLIENTS = 16  # enough to keep the largest batch and the next one full
MANY_CLIENTS = (1, 4, 16, 64, 256)
SIDES = ((375, 500), (750, 1000), (1500, 2000), (3000, 4000))


@dataclass(frozen=True)
class Start:
    """A server with all models of a repository: seconds from its start until ready, and the most memory until then."""

    ready_s: float
    peak_mb: float | None


@dataclass(frozen=True)
class Rate:
    """What some clients got that each sent one request after another: latencies in milliseconds.

    ``as_in_process`` is the share of answers whose first label is the one that the session gives without HTTP.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    as_in_process: float


@dataclass(frozen=True)
class OverHttp:
    """Figures of one model's server; rates in images a second, those of ``..._per_s`` one of each alternation."""

    model: str
    served: str
    offline_per_s: list[float]
    service_per_s: list[float]
    plain_per_s: list[float]
    by_clients: dict[int, Rate]
    by_photo: dict[str, Rate]
    peak_mb: dict[str, float | None]  # most memory that was resident, by server, with CLIENTS

    @property
    def service_over_offline(self) -> float:
        """The service's rate over that of decoding and inference alone: the median of the alternations' ratios."""
        return _ratio(self.service_per_s, self.offline_per_s)

    @property
    def service_over_plain(self) -> float:
        """The service's rate over the plain server's."""
        return _ratio(self.service_per_s, self.plain_per_s)

    @property
    def spread(self) -> float:
        """By what share the best rate exceeds the worst, of as many clients as fill batches and more."""
        rates = [rate.per_s for clients, rate in self.by_clients.items() if clients >= CLIENTS]
        return max(rates) / min(rates) - 1


def measure_idle(samples: Mapping[Path, Sequence[bytes]], settings: Settings) -> tuple[list[Start], dict[str, Idle]]:
    """Start the server some times, and ask the model in each folder for its samples, one request after another."""
    starts, times = list[Start](), dict[str, list[idle.Times]]()
    for number in range(SERVERS):
        log.info("measuring an idle server, %d of %d", number + 1, SERVERS)
        start = time.perf_counter()
        with _service(settings.model_repository, settings) as server:
            starts.append(Start(time.perf_counter() - start, _megabytes(server.peak_bytes())))
            with server.connect() as connection:
                for folder, photos in samples.items():
                    times.setdefault(folder.parent.name, []).extend(idle.measure(connection, folder, settings, photos))
    return starts, {name: Idle.of(of_model) for name, of_model in times.items()}


def measure_saturated(folder: Path, settings: Settings, photos: Sequence[bytes]) -> OverHttp:
    """Ask a server that has the model in ``folder`` alone for more than it can do, as fast as it answers.

    Raises StartupError or InvalidManifest, and RuntimeError for an answer that is none.
    """
    manifest = read_manifest(folder)
    placement = place(folder, manifest, settings)
    labels = read_labels(folder, manifest.labels)
    expected = functools.partial(_labels, placement, manifest, settings, labels)
    query = {"model": manifest.name, "timeout_ms": settings.max_timeout_ms}
    by_clients, by_photo = dict[int, Rate](), dict[str, Rate]()
    offline_rates, service_rates, plain_rates = list[float](), list[float](), list[float]()
    with (
        _only(folder) as repository,
        _service(
            repository,
            settings,
            # What was chosen above, not chosen once more.
            device=placement.device,
            precision=placement.precision,
            # All clients may wait: by default those beyond 64 would be told to come back later.
            max_queue_size=MANY_CLIENTS[-1],
            max_body_bytes_in_flight=max(settings.max_body_bytes_in_flight, MANY_CLIENTS[-1] * max(map(len, photos))),
        ) as service,
        running(Server, _python("service.bench.plain_server", str(folder)), os.environ) as plain,
    ):
        ask = functools.partial(_rate, service, query=query)
        right = expected(photos)
        for number in range(ALTERNATIONS):
            log.info("measuring offline, service, plain server in turn, %d of %d", number + 1, ALTERNATIONS)
            offline_rates.append(limits.offline_rate(placement, manifest, photos, settings))
            service_rates.append(ask(photos, right, CLIENTS).per_s)
            plain_rates.append(_rate(plain, photos, right, CLIENTS, query=query).per_s)
        peak = {"service": _megabytes(service.peak_bytes()), "plain": _megabytes(plain.peak_bytes())}
        for clients in MANY_CLIENTS:
            log.info("measuring %s with %d clients", manifest.name, clients)
            by_clients[clients] = ask(photos, right, clients)
        for side in SIDES:
            name = "x".join(map(str, side))
            log.info("measuring photos of %s", name)
            resized = [_resized(photo, *side) for photo in photos]
            by_photo[name] = ask(resized, expected(resized), CLIENTS)
    return OverHttp(
        manifest.name, str(placement), offline_rates, service_rates, plain_rates, by_clients, by_photo, peak
    )


@contextmanager
def _only(folder: Path) -> Iterator[Path]:
    """Yield a repository that holds this version of a model alone."""
    with tempfile.TemporaryDirectory() as repository:
        (Path(repository) / folder.parent.name).mkdir()
        (Path(repository) / folder.parent.name / folder.name).symlink_to(folder.resolve())
        yield Path(repository)


def _service(repository: Path, settings: Settings, **others: object) -> AbstractContextManager[Server]:
    """Run the server with these settings."""
    told = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    told |= {"port": 0, "model_repository": repository, "default_model": None} | others
    chosen = {f"INFERCEPTION_{name.upper()}": str(value) for name, value in told.items() if value is not None}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERCEPTION_")}
    return running(Server, _python("service", "serve"), environment | chosen)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _rate(
    server: Server, photos: Sequence[bytes], labels: Sequence[str], clients: int, *, query: Mapping[str, object]
) -> Rate:
    """Return what ``clients`` get that send one request after another. Raises RuntimeError unless all get answers."""
    requests = [classify_request(photo, query) for photo in photos]
    asyncio.run(keep_asking(server.address, requests, clients, SECONDS / 8))  # until memory for so many is there
    exchanges = asyncio.run(keep_asking(server.address, requests, clients, SECONDS))
    if refused := [answer for _, _, answer in exchanges if answer.status != 200]:
        raise RuntimeError(f"{len(refused)} of {len(exchanges)} requests got no answer, the first {refused[0]}")
    seconds = max(answer.finished for _, _, answer in exchanges) - min(sent for _, sent, _ in exchanges)
    latencies = [answer.finished - sent for _, sent, answer in exchanges]
    same = [_first_label(answer.body) == labels[number] for number, _, answer in exchanges]
    p50, p99 = (float(value) for value in np.percentile(latencies, [50, 99], method="inverted_cdf"))
    return Rate(len(exchanges) / seconds, p50 * 1e3, p99 * 1e3, statistics.mean(same))


def _first_label(body: bytes) -> str:
    answer: dict[str, Any] = json.loads(body)
    return str(answer["predictions"][0]["label"])


def _labels(
    placement: Placement, manifest: Manifest, settings: Settings, labels: Sequence[str], photos: Sequence[bytes]
) -> list[str]:
    """Return what the session answers without HTTP."""
    pixels = np.empty((1, manifest.input.height, manifest.input.width, 3), np.uint8)
    budget, found = Budget(settings.max_pixels_in_flight), []
    for photo in photos:
        decode(photo, pixels[0], manifest.preprocessing, settings.max_pixels, budget, settings.decode == "fast")
        found.append(labels[int(placement.sessions[0].run(pixels).argmax())])
    return found


def _resized(photo: bytes, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").resize((width, height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def _megabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e6
