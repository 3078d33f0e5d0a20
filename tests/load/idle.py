"""What HTTP and batching add to an idle request: alternates the same photos over HTTP and in process.

``python -m tests.load.idle`` prints both medians, their difference, and the server's resident memory.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from tqdm import trange

from export.photos import labelled_photos
from service.budget import Budget
from service.image import decode
from service.manifest import checked_file, read_manifest
from service.session import Session
from service.settings import available_cpus
from tests.load.bench import resident_bytes
from tests.server import serving

MAX_PIXELS = 50_000_000
ROUNDS = 90  # each photo ten times


def main() -> None:
    """Measure each model of the repository in turn."""
    repository = Path(os.environ.get("INFERCEPTION_MODEL_REPOSITORY", "model_repository"))
    photos = [photo.data for photo in labelled_photos()]
    # By hand: a client library would be part of what is measured.
    head = b"POST /classify?model=%s HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    with serving(repository) as server:
        print(f"{(resident_bytes(server.process.pid) or 0) / 1e6:.0f} MB resident, all models loaded and warm")
        connection = socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port))
        for folder in sorted(path.parent for path in repository.glob("*/*/manifest.json")):
            manifest = read_manifest(folder)
            session = Session(checked_file(folder, manifest.variants[0]), "cpu", available_cpus())
            pixels = np.empty((1, session.height, session.width, 3), np.uint8)
            over_http, in_process = [], []
            for i in trange(ROUNDS, desc=manifest.name):
                photo = photos[i % len(photos)]
                start = time.perf_counter()
                decode(photo, pixels[0], manifest.preprocessing, MAX_PIXELS, Budget(MAX_PIXELS))
                session.run(pixels)
                middle = time.perf_counter()
                connection.sendall(head % (manifest.name.encode(), len(photo)) + photo)
                answer = b""
                while not answer.endswith(b"}"):  # the JSON's end
                    answer += connection.recv(65536)
                end = time.perf_counter()
                assert answer.startswith(b"HTTP/1.1 200"), answer
                in_process.append((middle - start) * 1e3)
                over_http.append((end - middle) * 1e3)
            added = statistics.median(h - p for h, p in zip(over_http, in_process, strict=True))
            print(
                f"{manifest.name}: p50 {statistics.median(over_http):.1f} ms over HTTP, "
                f"{statistics.median(in_process):.1f} ms in process; a request takes {added:+.2f} ms more than its pair"
            )


if __name__ == "__main__":
    main()
