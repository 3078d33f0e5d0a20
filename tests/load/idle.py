"""What HTTP and batching add to an idle request: alternates the same photos over HTTP and in process.

``python -m tests.load.idle`` prints both medians, what a request takes more than its pair and more than the server's
own decoding and inference, and the server's resident memory.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import trange

from export.photos import labelled_photos
from service.budget import Budget
from service.image import decode
from service.manifest import read_manifest
from service.placement import place
from service.settings import Settings
from tests.load.bench import resident_bytes
from tests.server import connected, serving

MAX_PIXELS = 50_000_000
SERVERS = 3  # where a process' memory lies moves its speed by a percent: more than what is measured
ROUNDS = 45  # a server: each photo five times, and once more before, unmeasured
# By hand: a client library would be part of what is measured.
HEAD = b"POST /classify?model=%s HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


class Times(NamedTuple):
    """Milliseconds of one photo; ``at_work`` is what the server says that decoding and inference took of them."""

    in_process: float
    over_http: float
    at_work: float


def main() -> None:
    """Measure each model of the repository, on several servers."""
    repository = Path(os.environ.get("INFERCEPTION_MODEL_REPOSITORY", "model_repository"))
    photos = [photo.data for photo in labelled_photos()]
    times: dict[str, list[Times]] = {}
    for number in range(SERVERS):
        start = time.perf_counter()
        with serving(repository) as server:
            print(f"ready in {time.perf_counter() - start:.1f} s")
            print(f"{(resident_bytes(server.process.pid) or 0) / 1e6:.0f} MB resident, all models loaded and warm")
            with connected(server) as connection:
                for folder in sorted(path.parent for path in repository.glob("*/*/manifest.json")):
                    measured = times.setdefault(folder.parent.name, [])
                    measured += measure(connection, folder, photos, f"{folder.parent.name}, server {number + 1}")
    for name, measured in times.items():
        print(
            f"{name}: p50 {statistics.median(t.over_http for t in measured):.1f} ms over HTTP, "
            f"{statistics.median(t.in_process for t in measured):.1f} ms in process; a request takes "
            f"{statistics.median(t.over_http - t.in_process for t in measured):+.2f} ms more than its pair, "
            f"{statistics.median(t.over_http - t.at_work for t in measured):+.2f} ms more than the server's own "
            "decoding and inference"
        )


def measure(connection: socket.socket, folder: Path, photos: Sequence[bytes], title: str) -> list[Times]:
    """Classify photos in process and over HTTP in turn."""
    manifest = read_manifest(folder)
    settings = Settings()
    session = place(folder, manifest, settings).sessions[0]
    pixels = np.empty((1, session.height, session.width, 3), np.uint8)
    measured = []
    for i in trange(len(photos) + ROUNDS, desc=title):
        photo = photos[i % len(photos)]
        start = time.perf_counter()
        decode(photo, pixels[0], manifest.preprocessing, MAX_PIXELS, Budget(MAX_PIXELS), settings.decode == "fast")
        session.run(pixels)
        middle = time.perf_counter()
        connection.sendall(HEAD % (manifest.name.encode(), len(photo)) + photo)
        answer = b""
        while not answer.endswith(b"}"):  # the JSON's end
            answer += connection.recv(65536)
        end = time.perf_counter()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), answer
        stages = json.loads(body)["timing_ms"]
        measured.append(Times((middle - start) * 1e3, (end - middle) * 1e3, stages["decode"] + stages["infer"]))
    return measured[len(photos) :]


if __name__ == "__main__":
    main()
