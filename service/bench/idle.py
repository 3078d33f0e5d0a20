"""What HTTP and batching add to a request of an idle server: the same photos over HTTP and in process, in turn."""

from __future__ import annotations

import re
import socket
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from service.bench.client import classify_request
from service.budget import Budget
from service.inference.image import decode
from service.inference.manifest import read_manifest
from service.inference.placement import place
from service.settings import Settings

ROUNDS = 5  # of all photos, and one before that doesn't count


class Times(NamedTuple):
    """Milliseconds of one photo; ``at_work`` is what the server says that decoding and inference took of them."""

    in_process: float
    over_http: float
    at_work: float


@dataclass(frozen=True)
class Idle:
    """Milliseconds of requests that come one after another."""

    p50: float
    p99: float
    p50_in_process: float
    p50_more_than_in_process: float  # a request than its pair
    p50_more_than_at_work: float  # a request than the server's own decoding and inference

    @classmethod
    def of(cls, times: Iterable[Times]) -> Idle:
        """Return the figures of requests measured."""
        over_http, in_process, at_work = zip(*((t.over_http, t.in_process, t.at_work) for t in times), strict=True)
        return cls(
            statistics.median(over_http),
            float(np.percentile(over_http, 99, method="inverted_cdf")),
            statistics.median(in_process),
            statistics.median(map(float.__sub__, over_http, in_process)),
            statistics.median(map(float.__sub__, over_http, at_work)),
        )


def measure(connection: socket.socket, folder: Path, settings: Settings, photos: Sequence[bytes]) -> list[Times]:
    """Classify photos with the model in ``folder``, in process and over HTTP in turn.

    Raises RuntimeError for an answer that is none, ConnectionError when the server closes the connection.
    """
    manifest = read_manifest(folder)
    session = place(folder, manifest, settings).sessions[0]
    pixels = np.empty((1, session.height, session.width, 3), np.uint8)
    budget, fast = Budget(settings.max_pixels_in_flight), settings.decode == "fast"
    measured = []
    for photo in (1 + ROUNDS) * list(photos):
        request = classify_request(photo, {"model": manifest.name})
        start = time.perf_counter()
        decode(photo, pixels[0], manifest.preprocessing, settings.max_pixels, budget, fast)
        session.run(pixels)
        middle = time.perf_counter()
        connection.sendall(request)
        answer = _answer(connection)
        end = time.perf_counter()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"an idle server answered {answer!r}")
        stages = dict(re.findall(rb"(\w+);dur=([\d.]+)", answer))
        at_work = float(stages[b"decode"]) + float(stages[b"infer"])
        measured.append(Times((middle - start) * 1e3, (end - middle) * 1e3, at_work))
    return measured[len(photos) :]


def _answer(connection: socket.socket) -> bytes:
    """Read one HTTP response by hand: a client library would be part of what is measured."""
    answer, end = b"", 0
    while not end or len(answer) < end:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError(f"the server closed the connection after {answer!r}")
        answer += part
        if not end and (head := answer.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"content-length: (\d+)", answer[:head])
            end = head + 4 + (int(length[1]) if length else 0)
    return answer
