"""What HTTP asks of a server: methods, encodings, paths, and a description that is true."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from pathlib import Path

import httpx2
import pytest

from tests.over_http.exchange import assert_problem, label_of, png
from tests.server import Server

LIMIT = 20_000_000


def send(client: httpx2.Client, body: bytes, coding: str, kind: str = "image/jpeg") -> httpx2.Response:
    headers = {"Content-Type": kind, "Content-Encoding": coding}
    return client.post("/classify?model=xception", content=body, headers=headers)


@pytest.mark.parametrize("path", ["/classify/", "/models/", "/health/ready/", "/docs/"])
def test_a_slash_too_many_is_no_redirect(client: httpx2.Client, path: str) -> None:
    assert_problem(client.post(path, content=png()), 404, "Not Found")


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/models", "/models/xception", "/models/none", "/metrics", "/docs"]
)
def test_head_is_get_without_a_body(client: httpx2.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"])
    assert head.content == b""


def test_a_wrong_method_is_told_which_are_right(client: httpx2.Client) -> None:
    for method, path, right in (("DELETE", "/models", {"GET", "HEAD"}), ("HEAD", "/classify", {"POST"})):
        assert set(client.request(method, path).headers["allow"].split(", ")) == right


@pytest.mark.parametrize("kind", ["application/octet-stream", "binary/octet-stream", ""])
def test_a_client_that_knows_no_type_may_say_so(
    client: httpx2.Client, labelled: list[tuple[bytes, str]], kind: str
) -> None:
    data, label = labelled[0]
    answer = client.post("/classify?model=xception", content=data, headers={"Content-Type": kind})
    assert label_of(answer) == label


@pytest.mark.parametrize(
    ("coding", "encode"),
    [("gzip", gzip.compress), ("X-Gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_an_encoded_body_is_decoded(
    client: httpx2.Client, labelled: list[tuple[bytes, str]], coding: str, encode: type[bytes]
) -> None:
    data, label = labelled[0]
    assert label_of(send(client, encode(data), coding)) == label
    request = client.build_request("POST", "/classify", files={"file": data})
    assert label_of(send(client, encode(request.read()), coding, request.headers["content-type"])) == label


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "aws-chunked", "base64"])
def test_an_unknown_encoding_is_told_the_known_ones(client: httpx2.Client, coding: str) -> None:
    answer = send(client, png(), coding)
    assert_problem(answer, 415, repr(coding))
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("body", "coding", "detail"),
    [
        (png(), "gzip", "not what"),
        (png(), "deflate", "not what"),
        (gzip.compress(png())[:-9], "gzip", "ends early"),
        (b"", "gzip", "ends early"),
        (gzip.compress(png()) + b"more", "gzip", "goes on"),
    ],
)
def test_a_damaged_encoding_is_refused(client: httpx2.Client, body: bytes, coding: str, detail: str) -> None:
    assert_problem(send(client, body, coding), 422, detail)


def test_a_bomb_is_refused_at_the_limit_of_bodies(client: httpx2.Client) -> None:
    bomb = gzip.compress(bytes(LIMIT + 1))
    assert len(bomb) < LIMIT / 500
    assert_problem(send(client, bomb, "gzip"), 413, str(LIMIT))
    assert "inferception_body_bytes_in_flight 0.0" in client.get("/metrics").text


@pytest.mark.parametrize("name", ["topk", "top-k", "Model", "file"])
def test_a_parameter_that_nothing_reads_is_named(client: httpx2.Client, name: str) -> None:
    answer = client.post(f"/classify?model=xception&{name}=5", content=png())
    assert_problem(answer, 422, f"nothing reads {name}: there is model, version, top_k, timeout_ms")


def test_schemathesis_finds_no_answer_that_is_not_described(server: Server, tmp_path: Path) -> None:
    """Schemathesis asks everything that /openapi.json describes, rightly and wrongly, and checks what is answered."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--max-time=20"]
    # Pictures are not made from a schema, so a right request may well be refused.
    command += ["--phases=coverage,fuzzing", "--exclude-checks=positive_data_acceptance", "--generation-database=none"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    assert run.returncode == 0, run.stdout
