"""What HTTP and batching add to an idle request: alternates the same photos over HTTP and in process.

``python -m tests.load.idle`` prints both medians, their difference, and the server's resident memory.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

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
ROUNDS = 45  # a server: each photo five times
# By hand: a client library would be part of what is measured.
HEAD = b"POST /classify?model=%s HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


def main() -> None:
    """Measure each model of the repository, on several servers."""
    repository = Path(os.environ.get("INFERCEPTION_MODEL_REPOSITORY", "model_repository"))
    photos = [photo.data for photo in labelled_photos()]
    times: dict[str, list[tuple[float, float]]] = {}  # in process, over HTTP
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
        in_process, over_http = ([ms * 1e3 for ms in column] for column in zip(*measured, strict=True))
        added = statistics.median(h - p for h, p in zip(over_http, in_process, strict=True))
        print(
            f"{name}: p50 {statistics.median(over_http):.1f} ms over HTTP, "
            f"{statistics.median(in_process):.1f} ms in process; a request takes {added:+.2f} ms more than its pair"
        )


def measure(
    connection: socket.socket, folder: Path, photos: Sequence[bytes], title: str
) -> Iterator[tuple[float, float]]:
    """Classify photos in process and over HTTP in turn; yield the seconds of each pair."""
    manifest = read_manifest(folder)
    settings = Settings()
    session = place(folder, manifest, settings).sessions[0]
    pixels = np.empty((1, session.height, session.width, 3), np.uint8)
    for i in trange(ROUNDS, desc=title):
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
        assert answer.startswith(b"HTTP/1.1 200"), answer
        yield middle - start, end - middle


if __name__ == "__main__":
    main()
