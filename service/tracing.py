"""OpenTelemetry traces: off unless the standard ``OTEL_*`` variables ask for them, then sent by OTLP over HTTP.

A request's server span is FastAPI's own. Under it each image has ``decode``, ``queue`` and ``infer``, in turn.
The ``batch`` that images share is a trace of its own, which every ``infer`` links to.
"""

from __future__ import annotations

import os
import time

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.util.types import AttributeValue

from service.errors import StartupError

# None while nobody asks for traces: a tracer that drops every span takes its time for it.
_tracer: trace.Tracer | None = None


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
    return _tracer is not None


class BatchSpan:
    """One batch on the device, ``images`` padded to ``size``, that runs ``since`` on ``time.perf_counter``."""

    def __init__(self, model: str, images: int, size: int, since: float) -> None:
        self._span: trace.Span = trace.INVALID_SPAN
        self.link: trace.Link | None = None
        if _tracer is None:
            return
        attributes: dict[str, AttributeValue] = {
            "inferception.model": model,
            "inferception.batch_size": images,
            "inferception.padded_size": size,
        }
        # Started by whichever request found the device idle, but no part of it.
        self._span = _tracer.start_span(
            "batch", Context(), attributes=attributes, start_time=_epoch() + _nanoseconds(since)
        )
        self.link = trace.Link(self._span.get_span_context())

    def end(self, error: BaseException | None) -> None:
        """Say that the batch is done, or what it raised."""
        if error is not None:
            self._span.set_status(trace.StatusCode.ERROR, str(error))
        self._span.end()


class Stages:
    """The spans of one image, under the span that is current when this is made.

    An image that gets no answer has them up to the stage where it was given up.
    """

    def __init__(self) -> None:
        self._parent, self._epoch = get_current(), _epoch()  # read once, so that no stage seems to end before it starts
        self._span: trace.Span = trace.INVALID_SPAN

    def enter(self, name: str, since: float, batch: BatchSpan | None = None) -> None:
        """End the stage before and start this one, ``since`` on ``time.perf_counter``.

        ``batch`` is what it shares with other images.
        """
        if _tracer is None:
            return
        start, links = self._epoch + _nanoseconds(since), [batch.link] if batch and batch.link else None
        self._span.end(start)
        self._span = _tracer.start_span(name, self._parent, links=links, start_time=start)

    def end(self) -> None:
        """End the last stage."""
        self._span.end()
        self._span = trace.INVALID_SPAN


def _epoch() -> int:
    """Return what a clock of spans said when ``time.perf_counter`` was 0."""
    return time.time_ns() - time.perf_counter_ns()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
