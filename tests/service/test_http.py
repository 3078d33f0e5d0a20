"""Over real HTTP, against a real server process with real models."""

from __future__ import annotations

import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.server import Server, connected, received, serving

LIMIT = 20_000_000
LABELLED = 9


@pytest.fixture(scope="module")
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, body_timeout_ms=2000) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with server.client() as open_client:
        yield open_client


@pytest.fixture(scope="module")
def labelled(kitchenware_photos: list[tuple[Path, str | None]]) -> list[tuple[bytes, str]]:
    photos = [(path.read_bytes(), label) for path, label in kitchenware_photos if label is not None]
    assert len(photos) == LABELLED
    return photos


def classify(client: httpx2.Client, data: bytes, **parameters: Any) -> httpx2.Response:
    return client.post(
        "/classify",
        params={"model": "xception"} | parameters,
        content=data,
        headers={"Content-Type": "image/jpeg"},
    )


def label_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    label: str = answer.json()["predictions"][0]["label"]
    return label


def assert_problem(answer: httpx2.Response, status: int, detail: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert detail in problem["detail"]
    assert "Traceback" not in answer.text
    assert "total;dur=" in answer.headers["server-timing"]


@pytest.fixture(autouse=True)
def _still_serves(server: Server, labelled: list[tuple[bytes, str]]) -> Iterator[None]:
    """Whatever a test sent, the next request is answered."""
    yield
    with server.client() as after:
        assert label_of(classify(after, labelled[0][0])) == labelled[0][1]


def test_every_labelled_photo_is_named_right(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    assert [label_of(classify(client, data)) for data, _ in labelled] == [label for _, label in labelled]


def test_the_answer_says_what_when_and_how(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    answer = classify(client, labelled[0][0], top_k=3)
    body = answer.json()
    assert body["model"] == "xception"
    assert body["version"] == 1
    assert body["precision"] == "fp32"
    assert body["trained"] is True
    assert body["batch_size"] == 1
    probabilities = [prediction["probability"] for prediction in body["predictions"]]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    timing = body["timing_ms"]
    assert 0 < timing["decode"] + timing["queue"] + timing["infer"] <= timing["total"]
    stages = [stage.partition(";")[0] for stage in answer.headers["server-timing"].split(", ")]
    assert stages == ["read", "decode", "queue", "infer", "total"]


def test_untrained_weights_say_so_everywhere(client: httpx2.Client, server: Server) -> None:
    models = {model["name"]: model for model in client.get("/models").json()["models"]}
    answer = classify(client, _png(), model="inception_v4").json()
    assert answer["trained"] == models["inception_v4"]["trained"]
    assert models["inception_v4"]["trained"] == (not any("RANDOM weights" in line for line in server.output))


def test_several_files_are_answered_in_order(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    files = [("file", (f"{i}.jpg", data, "image/jpeg")) for i, (data, _) in enumerate(labelled)]
    results = client.post("/classify", params={"model": "xception"}, files=files).json()["results"]
    assert [result["file"] for result in results] == [f"{i}.jpg" for i in range(LABELLED)]
    assert [result["predictions"][0]["label"] for result in results] == [label for _, label in labelled]


def test_one_multipart_file_is_answered_like_a_raw_body(
    client: httpx2.Client, labelled: list[tuple[bytes, str]]
) -> None:
    data, label = labelled[0]
    assert label_of(client.post("/classify", params={"model": "xception"}, files={"file": data})) == label


def test_a_bad_file_among_good_ones_fails_alone(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    files = [("file", labelled[0][0]), ("file", b"not an image"), ("file", labelled[1][0])]
    answer = client.post("/classify", params={"model": "xception"}, files=files)
    first, bad, last = answer.json()["results"]
    assert answer.status_code == 200
    assert first["predictions"][0]["label"] == labelled[0][1]
    assert last["predictions"][0]["label"] == labelled[1][1]
    assert bad["error"]["status"] == 400


def test_sixteen_clients_fill_batches_and_never_swap_answers(
    model_repository: Path, labelled: list[tuple[bytes, str]]
) -> None:
    """On a server of their own: while another model is in use, batches are kept short for its sake."""
    rounds, clients = 6, 16
    together = threading.Barrier(clients)

    def client_run(number: int) -> list[int]:
        data, label = labelled[number % LABELLED]
        sizes = []
        with fresh.client() as client:
            together.wait(30)
            for _ in range(rounds):
                answer = classify(client, data)
                assert label_of(answer) == label
                sizes.append(answer.json()["batch_size"])
        return sizes

    with serving(model_repository) as fresh, ThreadPoolExecutor(clients) as pool:
        sizes = [size for run in pool.map(client_run, range(clients)) for size in run]
    batches = sum(1 / size for size in sizes)  # an image in a batch of n is an nth of a batch
    assert len(sizes) == rounds * clients
    assert len(sizes) / batches >= 4


def _png(width: int = 320, height: int = 240) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(file, "PNG")
    return file.getvalue()


def _huge_png_header() -> bytes:
    """A PNG of 30000 x 30000 pixels that is only a header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", 1 << 20) + b"IDAT"


def test_empty_body(client: httpx2.Client) -> None:
    assert_problem(classify(client, b""), 400, "empty")


def test_text(client: httpx2.Client) -> None:
    assert_problem(classify(client, b"hello"), 400, "not an image")


def test_truncated_jpeg(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    assert_problem(classify(client, labelled[0][0][:50_000]), 400, "ends early")


def test_a_huge_picture_is_refused_by_its_header(client: httpx2.Client) -> None:
    assert_problem(classify(client, _huge_png_header()), 413, "pixels")


def test_a_body_declared_too_large_is_refused(client: httpx2.Client) -> None:
    assert_problem(classify(client, b"x" * (LIMIT + 1)), 413, str(LIMIT))


def test_an_endless_body_is_refused_while_it_is_read(server: Server) -> None:
    """No Content-Length, and never an end: only a limit on what was read can answer."""
    with connected(server) as connection:
        head = "POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"%x\r\n" % (1 << 20) + b"x" * (1 << 20) + b"\r\n"
        for _ in range(LIMIT // (1 << 20) + 1):
            connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_stops_coming_is_cut_off(server: Server) -> None:
    with connected(server) as connection:
        head = "POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\nonly this".encode())
        answer = b""
        while chunk := connection.recv(1000):  # the server closes it
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive" in answer


def test_a_client_that_leaves_is_noticed_and_its_place_freed(server: Server, labelled: list[tuple[bytes, str]]) -> None:
    data = labelled[0][0]
    head = "POST /classify?model=xception HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    def metric(name: str) -> float:
        lines = observer.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f'{name}{{model="xception"'))

    with server.client() as observer:
        before = metric("inferception_disconnected_total")
        leaving = [connected(server) for _ in range(8)]
        for connection in leaving:
            connection.sendall(request)
        for connection in leaving:
            connection.close()
        patience = time.monotonic() + 30
        while metric("inferception_disconnected_total") == before or metric("inferception_queue_bytes"):
            assert time.monotonic() < patience
        assert metric("inferception_queue_depth") == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_wrong_content_type(client: httpx2.Client, kind: str) -> None:
    answer = client.post("/classify?model=xception", content=b"x", headers={"Content-Type": kind})
    assert_problem(answer, 415, kind)


def test_unknown_model(client: httpx2.Client) -> None:
    assert_problem(classify(client, _png(), model="resnet"), 404, "there is inception_v4, xception")
    assert_problem(client.get("/models/resnet"), 404, "resnet")


def test_unknown_version(client: httpx2.Client) -> None:
    assert_problem(classify(client, _png(), version=99), 404, "no version 99 of xception")


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": 7}, "6 classes"),
        ({"top_k": "many"}, "top_k"),
        ({"version": 0}, "version"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"model": ""}, "say which model"),
    ],
)
def test_bad_parameters(client: httpx2.Client, parameters: dict[str, Any], detail: str) -> None:
    assert_problem(classify(client, _png(), **parameters), 422, detail)


def test_an_unknown_priority_is_named(client: httpx2.Client) -> None:
    answer = client.post("/classify?model=xception", content=_png(), headers={"X-Priority": "urgent"})
    assert_problem(answer, 422, "'high', 'normal' or 'low'")


def test_multipart_without_a_file(client: httpx2.Client) -> None:
    answer = client.post("/classify?model=xception", data={"a": "b"}, files={"other": b"x"})
    assert_problem(answer, 422, "no part named 'file'")


def test_broken_multipart(client: httpx2.Client) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=b"):
        answer = client.post("/classify?model=xception", content=b"junk", headers={"Content-Type": kind})
        assert_problem(answer, 422, "multipart")


def test_a_deadline_that_cannot_be_met_is_refused_at_once(client: httpx2.Client) -> None:
    answer = classify(client, _png(), timeout_ms=1)
    assert_problem(answer, 429, "deadline")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_deadline_that_passes_in_the_queue_is_answered_then(client: httpx2.Client, server: Server) -> None:
    """Work of higher priority, which came later, keeps a request from the batch that it was admitted for."""
    alone_ms = client.get("/models/xception").json()["batch_ms"]["1"]
    timeout_ms, png = int(30 * alone_ms), _png()

    def request(priority: str, timeout_ms: int) -> bytes:
        head = f"POST /classify?model=xception&timeout_ms={timeout_ms} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
        return f"{head}X-Priority: {priority}\r\nContent-Length: {len(png)}\r\n\r\n".encode() + png

    urgent = request("high", 60_000)
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(64)]
        start = time.monotonic()
        for i, connection in enumerate(connections):  # from one thread, so that they come in this order
            connection.sendall(request("low", timeout_ms) if i == 4 else urgent)
        low = connections.pop(4)
        status, body = received(low)
        assert status == "HTTP/1.1 504 Gateway Timeout"
        assert json.loads(body)["type"] == "urn:inferception:error:deadline-exceeded"
        assert time.monotonic() - start < (timeout_ms + 3 * alone_ms) / 1e3
        assert {received(connection)[0] for connection in connections} == {"HTTP/1.1 200 OK"}


def test_unknown_path_and_method(client: httpx2.Client) -> None:
    assert_problem(client.get("/nothing"), 404, "Not Found")
    assert_problem(client.get("/classify"), 405, "Method Not Allowed")


def test_models_tell_provider_precision_and_origin(client: httpx2.Client) -> None:
    model = client.get("/models/xception").json()
    assert model["provider"] == "CPUExecutionProvider"
    assert model["nodes"] == {"CPUExecutionProvider": 133}
    assert model["precision"] == "fp32"
    assert model["labels"] == 6
    assert model["ready"] is True
    assert "kitchenware" in model["weights"]
    assert set(model["batch_ms"]) == {"1", "3", "6"}


def test_health_metrics_and_docs(client: httpx2.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    classify(client, _png())
    metrics = client.get("/metrics").text
    assert 'inferception_requests_total{model="xception",path="/classify",status="200"}' in metrics
    assert (
        'inferception_model_ready{model="xception",precision="fp32",provider="CPUExecutionProvider",version="1"} 1.0'
        in metrics
    )
    assert 'inferception_model_nodes{model="xception",provider="CPUExecutionProvider",version="1"} 133.0' in metrics
    assert client.get("/docs").status_code == 200
    described = client.get("/openapi.json").json()["paths"]["/classify"]["post"]
    assert {(parameter["name"], parameter["in"]) for parameter in described["parameters"]} == {
        *((name, "query") for name in ("model", "version", "top_k", "timeout_ms")),
        *((name, "header") for name in ("x-request-timeout-ms", "x-priority")),
    }


def test_a_request_id_is_taken_over_or_made(client: httpx2.Client) -> None:
    assert client.get("/health/live", headers={"X-Request-Id": "mine"}).headers["x-request-id"] == "mine"
    made = [client.get("/health/live").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
