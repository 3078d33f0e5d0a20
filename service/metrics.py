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
        self._by_model: list[Counter | Histogram] = []

        def counter(name: str, text: str, *labels: str) -> Counter:
            made = Counter(f"inferception_{name}", text, labels, registry=self.registry)
            if "model" in labels:
                self._by_model.append(made)
            return made

        def histogram(name: str, text: str, buckets: Sequence[float], label: str) -> Histogram:
            return Histogram(f"inferception_{name}", text, (label,), buckets=buckets, registry=self.registry)

        self.requests = counter("requests_total", "Answers by model, path and status", "model", "path", "status")
        self.key_requests = counter("key_requests_total", "Answers by API key and status", "key", "status")
        self.images = counter("images_total", "Images by model and outcome", "model", "outcome")
        self.shed = counter("shed_total", "Images refused or shed for load, by reason", "model", "reason")
        self.expired = counter("expired_total", "Requests answered 504, their deadline passed", "model")
        self.connections_refused = counter(
            "connections_refused_total", "Connections cut off before a request was read, by reason", "reason"
        )
        self.disconnected = counter("disconnected_total", "Clients gone before their answer", "model")
        self.cache_hits = counter("cache_hits_total", "Images answered by a remembered answer", "model")
        self.cache_misses = counter("cache_misses_total", "Images that ran, since no answer was remembered", "model")
        self.batches = counter("batches_total", "Batches by model and outcome", "model", "outcome")
        self.batch_seconds = counter("batch_seconds_total", "Time that batches took", "model")
        self.predicted_seconds = counter("predicted_batch_seconds_total", "Time they were predicted to take", "model")
        self.batch_size = histogram("batch_size", "Images by batch", _IMAGES, "model")
        self._by_model.append(self.batch_size)
        self.stage = histogram(
            "stage_seconds", "Time by stage: read, cache, decode, queue, infer, total", _SECONDS, "stage"
        )

    def held(self, name: str, text: str, budget: Budget) -> None:
        """Expose how much of ``budget`` is held, as the gauge ``inferception_<name>``."""
        gauge = Gauge(f"inferception_{name}", text, registry=self.registry)
        gauge.set_function(lambda: budget.held)

    def forget(self, model: str) -> None:
        """Remove what was counted of a model that is no longer served."""
        for metric in self._by_model:
            metric.remove_by_labels({"model": model})

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)
