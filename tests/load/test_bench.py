from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

from service.metrics import Metrics
from tests.load.bench import resident_bytes, total


def test_metrics_are_summed_over_the_labels_that_are_not_named() -> None:
    metrics = Metrics()
    exposition = metrics.exposition().decode()
    assert total(exposition, "inferception_disconnected_total") == 0
    assert total(exposition, "inferception_queue_depth") == 0
    assert math.isnan(total(exposition, "inferception_nothing_like_it"))

    metrics.disconnected.labels("xception").inc(3)
    metrics.disconnected.labels("inception_v4").inc(4)
    for size in (1, 8):
        metrics.batch_size.labels("xception").observe(size)
    metrics.queue_depth.labels("xception").set(2)
    exposition = metrics.exposition().decode()
    assert total(exposition, "inferception_disconnected_total") == 7
    assert total(exposition, "inferception_disconnected_total", model="xception") == 3
    assert total(exposition, "inferception_batch_size_sum", model="xception") == 9
    assert total(exposition, "inferception_queue_depth") == 2


def test_resident_memory_of_a_process_until_it_ends() -> None:
    mine = resident_bytes(os.getpid())
    assert mine is not None
    assert 1e6 < mine < 1e11
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        # Ended but not yet waited for is a state of its own.
        for _ in itertools.takewhile(lambda _: resident_bytes(process.pid) is not None, itertools.count()):
            pass
    assert resident_bytes(process.pid) is None
