from __future__ import annotations

import math
import subprocess
import sys

from bench.server import Server
from bench.under_load import total
from service.metrics import Metrics


def test_metrics_are_summed_over_the_labels_that_are_not_named() -> None:
    metrics = Metrics()
    exposition = metrics.exposition().decode()
    assert total(exposition, "inferception_disconnected_total") == 0
    assert math.isnan(total(exposition, "inferception_nothing_like_it"))

    metrics.disconnected.labels("xception", 1).inc(3)
    metrics.disconnected.labels("inception_v4", 1).inc(4)
    for size in (1, 8):
        metrics.batch_size.labels("xception", 1).observe(size)
    exposition = metrics.exposition().decode()
    assert total(exposition, "inferception_disconnected_total") == 7
    assert total(exposition, "inferception_disconnected_total", model="xception") == 3
    assert total(exposition, "inferception_batch_size_sum", model="xception") == 9


def test_memory_of_a_process_until_it_ends() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        process.stdout.readline()
        server = Server(process)
        mine, peak = server.resident_bytes(), server.peak_mb()
        assert mine is not None
        assert peak is not None
        assert 1e6 < mine <= peak * 1e6 < 1e10
        process.communicate("\n")
    assert (server.resident_bytes(), server.peak_mb()) == (None, None)
