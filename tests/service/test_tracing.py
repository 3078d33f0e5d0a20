"""Traces of a real server, as an OTLP collector receives them, and traces of failing batches."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service import tracing
from service.errors import InferenceFailed
from tests.over_grpc.client import connected, pictures
from tests.server import serving
from tests.service.scheduling.gated_session import GatedSession, ask, batching
from tests.service.scheduling.gated_session import serving as serving_a_fake

CLIENTS = 8
PHOTOS = 3  # in one request


class Collector:
    """Keeps every span that it receives. ``names`` are the services that sent the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.names: set[str] = set()
        self.url = ""

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {attribute.key: attribute.value for attribute in resource.resource.attributes}
            self.names.add(attributes["service.name"].string_value)
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "classifier of the test")
        yield found
        server.shutdown()


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in span.attributes}


def test_every_request_has_its_stages_and_every_batch_its_images(
    model_repository: Path, kitchenware_photos: list[tuple[Path, str | None]], collector: Collector
) -> None:
    photo = kitchenware_photos[0][0].read_bytes()
    parents = {f"{i + 1:032x}": f"{i + 100:016x}" for i in range(CLIENTS)}  # by trace: the client's span

    settings = {"grpc_port": 0, "max_batch_size": 4, "trusted_proxies": "127.0.0.1", "root_path": "/api"}
    with serving(model_repository, **settings) as server, ThreadPoolExecutor(CLIENTS) as pool:

        def classify(trace: str) -> None:
            parent = f"00-{trace}-{parents[trace]}-01"
            if trace.endswith("2"):
                with connected(server) as client:
                    client.infer(pictures(photo), metadata=(("traceparent", parent),))
                return
            with server.client() as http:
                headers = {"traceparent": parent, "X-Forwarded-Proto": "https"}
                files = [("file", ("a.jpg", photo, "image/jpeg"))] * (PHOTOS if trace.endswith("1") else 1)
                answer = http.post("/classify?model=xception&timeout_ms=30000", files=files, headers=headers)
                assert answer.status_code == 200, answer.text

        list(pool.map(classify, parents))
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert httpx2.get(server.url + path).status_code == 200
    # The server has stopped, and has sent all its spans.

    by_name: dict[str, list[Span]] = {}
    for span in collector.spans:
        by_name.setdefault(span.name, []).append(span)
    over_http, over_grpc = "POST /api/classify", "/inference.GRPCInferenceService/ModelInfer"
    assert by_name.keys() == {over_http, over_grpc, "decode", "queue", "infer", "batch"}
    assert collector.names == {"classifier of the test"}

    requests = {span.trace_id.hex(): span for span in by_name[over_http] + by_name[over_grpc]}
    assert {trace: span.parent_span_id.hex() for trace, span in requests.items()} == parents
    assert {span.kind for span in requests.values()} == {Span.SPAN_KIND_SERVER}
    assert {attributes(span)["url.scheme"] for span in by_name[over_http]} == {"https"}  # as the proxy says
    for stage in ("decode", "queue", "infer"):
        counts = Counter(span.trace_id.hex() for span in by_name[stage])
        assert counts == {trace: PHOTOS if trace.endswith("1") else 1 for trace in parents}
        for span in by_name[stage]:
            request = requests[span.trace_id.hex()]
            assert span.parent_span_id == request.span_id
            assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= request.end_time_unix_nano

    batches = {(span.trace_id, span.span_id): span for span in by_name["batch"]}
    links = Counter((link.trace_id, link.span_id) for span in by_name["infer"] for link in span.links)
    assert links.keys() == batches.keys()
    for key, batch in batches.items():
        found = attributes(batch)
        assert not batch.parent_span_id
        assert found["inferception.model"] == "xception"
        assert found["inferception.batch_size"] == links[key]
        assert links[key] <= found["inferception.padded_size"] <= 4
    assert max(links.values()) > 1


@contextmanager
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield spans
    provider.shutdown()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_batch_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    def broken(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("out of memory")

    session = GatedSession()
    session.result = broken
    session.gate.release()
    one = serving_a_fake(session)
    with recording(monkeypatch) as spans:
        async with batching(one) as batcher:
            with pytest.raises(InferenceFailed):
                await ask(batcher, one, 1)
        batch, *stages = sorted(spans.get_finished_spans(), key=lambda span: span.name != "batch")
    assert (batch.status.status_code, batch.status.description) == (StatusCode.ERROR, "the model failed: out of memory")
    assert [span.name for span in stages] == ["decode", "queue", "infer"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_image_given_up_ends_in_the_stage_it_was_in(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    session = GatedSession()
    one = serving_a_fake(session)
    with recording(monkeypatch) as spans:
        async with batching(one) as batcher:
            first = asyncio.create_task(ask(batcher, one, 1))
            await session.running()
            second = asyncio.create_task(ask(batcher, one, 2))
            while [span.name for span in spans.get_finished_spans()].count("decode") < 2:
                await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            names = [span.name for span in spans.get_finished_spans()]
            session.gate.release()
            await first
    assert names == ["decode", "queue", "decode", "queue"]


LOADED = """
import sys
from service import tracing
from service.http import app
tracing.configure()
from opentelemetry import trace
print(type(trace.get_tracer_provider()).__name__, any(name.startswith("opentelemetry.sdk") for name in sys.modules))
"""


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, "ProxyTracerProvider False"),
        ({"OTEL_SERVICE_NAME": "a name asks for nothing"}, "ProxyTracerProvider False"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, "ProxyTracerProvider False"),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, "ProxyTracerProvider False"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "TracerProvider True"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, "TracerProvider True"),
    ],
)
def test_only_the_environment_turns_traces_on(variables: dict[str, str], found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == found


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}],
)
def test_what_is_not_available_is_said_at_start(variables: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--port=0", f"--model-repository={tmp_path}"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 1
    name, value = list(variables.items())[-1]
    assert f"can't start: {name}={value}" in done.stderr


def test_missing_packages_are_named() -> None:
    without = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None; from service import tracing; tracing.configure()"
    )
    environment = os.environ | {"OTEL_TRACES_EXPORTER": "otlp"}
    done = subprocess.run([sys.executable, "-c", without], env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 1
    assert "StartupError: traces need opentelemetry.sdk.trace: pip install" in done.stderr
