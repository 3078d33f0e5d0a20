"""What Prometheus sees. One instance a process, on a registry of its own."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from service.budget import Budget

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters and histograms, fed where things happen. A gauge is read when it is scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._by_version: list[Counter | Histogram] = []

        def counter(name: str, text: str, *labels: str) -> Counter:
            made = Counter(f"inferception_{name}", text, labels, registry=self.registry)
            if "version" in labels:
                self._by_version.append(made)
            return made

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"inferception_{name}", text, labels, buckets=buckets, registry=self.registry)

        version = "model", "version"
        self.requests = counter("requests_total", "Answers by model, path and status", "model", "path", "status")
        self.key_requests = counter("key_requests_total", "Answers by API key and status", "key", "status")
        self.images = counter("images_total", "Images by version and outcome", *version, "outcome")
        self.shed = counter("shed_total", "Images refused or shed for load, by reason", *version, "reason")
        self.expired = counter("expired_total", "Requests answered 504, their deadline passed", *version)
        self.connections_refused = counter(
            "connections_refused_total", "Connections cut off before a request was read, by reason", "reason"
        )
        self.disconnected = counter("disconnected_total", "Clients gone before their answer", *version)
        self.cache_hits = counter("cache_hits_total", "Images answered by a remembered answer", *version)
        self.cache_misses = counter("cache_misses_total", "Images that ran, since no answer was remembered", *version)
        self.batches = counter("batches_total", "Batches by version and outcome", *version, "outcome")
        self.batch_seconds = counter("batch_seconds_total", "Time that batches took", *version)
        self.predicted_seconds = counter("predicted_batch_seconds_total", "Time they were predicted to take", *version)
        self.batch_size = histogram("batch_size", "Images by batch", _IMAGES, *version)
        self._by_version.append(self.batch_size)
        self.stage = histogram(
            "stage_seconds", "Time by stage: read, cache, decode, queue, infer, total", _SECONDS, "stage"
        )

    def held(self, name: str, text: str, budget: Budget) -> None:
        """Expose how much of ``budget`` is held, as the gauge ``inferception_<name>``."""
        gauge = Gauge(f"inferception_{name}", text, registry=self.registry)
        gauge.set_function(lambda: budget.held)

    def forget(self, model: str, version: int, *, last: bool) -> None:
        """Remove what was counted of a version that is no longer served, and of its model if it was the ``last``."""
        for metric in self._by_version:
            metric.remove_by_labels({"model": model, "version": str(version)})
        if last:
            self.requests.remove_by_labels({"model": model})

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)
