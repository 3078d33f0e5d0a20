"""What Prometheus sees. One instance a process, on a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters and histograms, fed where things happen; gauges, read from the registry when scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"inferception_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"inferception_{name}", text, labels, registry=self.registry)

        self.requests = counter("requests_total", "Answers by model, path and status", ("model", "path", "status"))
        self.images = counter("images_total", "Images by model and outcome", ("model", "outcome"))
        self.shed = counter("shed_total", "Images refused or shed for load, by reason", ("model", "reason"))
        self.expired = counter("expired_total", "Requests answered 504, their deadline passed", ("model",))
        self.connections_refused = counter(
            "connections_refused_total", "Connections cut off before a request was read, by reason", ("reason",)
        )
        self.disconnected = counter("disconnected_total", "Clients gone before their answer", ("model",))
        self.batches = counter("batches_total", "Batches by model and outcome", ("model", "outcome"))
        self.batch_seconds = counter("batch_seconds_total", "Time that batches took", ("model",))
        self.predicted_seconds = counter(
            "predicted_batch_seconds_total", "Time they were predicted to take", ("model",)
        )
        self.stage = Histogram(
            "inferception_stage_seconds",
            "Time by stage: read, decode, queue, infer, total",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "inferception_batch_size", "Images by batch", ("model",), buckets=_IMAGES, registry=self.registry
        )
        self.queue_depth = gauge("queue_depth", "Images admitted and not yet running", ("model",))
        self.queue_bytes = gauge("queue_bytes", "Decoded bytes leased: waiting, decoding or running", ("model",))
        self.pixels_in_flight = gauge("pixels_in_flight", "Pixels being decoded")
        self.body_bytes_in_flight = gauge("body_bytes_in_flight", "Bytes of request bodies held in memory")
        self.ready = gauge("ready", "1 if /health/ready says so, else 0")
        self.model_nodes = gauge("model_nodes", "Nodes of the graph by provider", ("model", "version", "provider"))
        self.model_ready = gauge(
            "model_ready", "1 if the model is offered, else 0", ("model", "version", "provider", "precision")
        )

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)
