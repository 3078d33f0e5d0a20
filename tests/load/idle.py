"""What HTTP and batching add to an idle request: alternates the same photo over HTTP and in process.

``python -m tests.load.idle`` prints both medians, their difference, and the server's resident memory.
"""

from __future__ import annotations

import http.client
import os
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
ROUNDS = 60


def main() -> None:
    """Measure each model of the repository in turn."""
    repository = Path(os.environ.get("INFERCEPTION_MODEL_REPOSITORY", "model_repository"))
    photo = labelled_photos()[0].data
    with serving(repository) as server:
        print(f"{(resident_bytes(server.process.pid) or 0) / 1e6:.0f} MB resident, all models loaded and warm")
        # The standard library's client: cheap enough not to be what is measured.
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        for folder in sorted(path.parent for path in repository.glob("*/*/manifest.json")):
            manifest = read_manifest(folder)
            session = Session(checked_file(folder, manifest.variants[0]), "cpu", available_cpus())
            pixels = np.empty((1, session.height, session.width, 3), np.uint8)
            over_http, in_process = [], []
            for _ in trange(ROUNDS, desc=manifest.name):
                start = time.perf_counter()
                decode(photo, pixels[0], manifest.preprocessing, MAX_PIXELS, Budget(MAX_PIXELS))
                session.run(pixels)
                middle = time.perf_counter()
                connection.request("POST", f"/classify?model={manifest.name}", photo, {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                body = answer.read()
                end = time.perf_counter()
                assert answer.status == http.client.OK, body
                in_process.append((middle - start) * 1e3)
                over_http.append((end - middle) * 1e3)
            http_ms, process_ms = statistics.median(over_http), statistics.median(in_process)
            print(
                f"{manifest.name}: p50 {http_ms:.1f} ms over HTTP, {process_ms:.1f} ms in process, "
                f"difference {http_ms - process_ms:+.2f} ms"
            )


if __name__ == "__main__":
    main()
