"""OpenTelemetry traces: off unless the standard ``OTEL_*`` variables ask for them, then sent by OTLP over HTTP.

A request's server span is FastAPI's own, or for gRPC the one of ``request``. Under it each image has ``decode``,
``queue`` and ``infer``, in turn. The ``batch`` that images share is a trace of its own, which every ``infer`` links to.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.propagate import extract
from opentelemetry.util.types import AttributeValue

from service.errors import StartupError

Span = trace.Span

_tracer: trace.Tracer = trace.NoOpTracer()  # while nobody asks for traces


def configure() -> None:
    """Send traces if the environment asks for it. Raises StartupError if it asks for what can't be had."""
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    protocols = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    exporter = os.environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(os.environ.get, endpoints)) else "none")
    if exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    if exporter != "otlp":
        raise StartupError(f"OTEL_TRACES_EXPORTER={exporter} is none of those available: otlp, none")
    protocol = next(filter(None, map(os.environ.get, protocols)), "http/protobuf")
    if protocol != "http/protobuf":
        raise StartupError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not available: choose http/protobuf")
    # Most servers send no traces, and needn't load what that takes.
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartupError(f"traces need {error.name}: pip install -r requirements/service.txt") from error

    provider = TracerProvider()  # it, the processor and the exporter read the other variables themselves
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    global _tracer
    _tracer = provider.get_tracer("inferception")


def is_on() -> bool:
    """Return whether traces are sent."""
    return not isinstance(_tracer, trace.NoOpTracer)


@contextmanager
def request(name: str, metadata: Mapping[str, str]) -> Iterator[None]:
    """Let the block be a span that continues the client's ``traceparent``, if traces are sent."""
    if not is_on():
        yield
        return
    kind = trace.SpanKind.SERVER
    with _tracer.start_as_current_span(name, extract(metadata), kind, record_exception=False):
        yield


def start_batch(model: str, images: int, size: int) -> Span:
    """Return the span of a batch that starts now: ``images`` padded to ``size``."""
    attributes: dict[str, AttributeValue] = {
        "inferception.model": model,
        "inferception.batch_size": images,
        "inferception.padded_size": size,
    }
    # Some request found the slot idle and so started the batch. The batch is no part of that request.
    return _tracer.start_span("batch", Context(), attributes=attributes)


def end_batch(span: Span, error: Exception | None) -> None:
    """Say that the batch is done, or what it raised."""
    if error is not None:
        span.set_status(trace.StatusCode.ERROR, str(error))
    span.end()


class Stages:
    """The spans of one image, under the span that is current when this is made.

    An image that gets no answer has spans up to the stage in which it was given up.
    """

    def __init__(self) -> None:
        self._parent = get_current()
        self._span: Span = trace.INVALID_SPAN

    def enter(self, name: str, batch: Span | None = None) -> None:
        """End the stage before and start this one. ``batch`` is what the image shares with other images."""
        self._span.end()
        links = None if batch is None else [trace.Link(batch.get_span_context())]
        self._span = _tracer.start_span(name, self._parent, links=links)

    def end(self) -> None:
        """End the last stage."""
        self._span.end()
