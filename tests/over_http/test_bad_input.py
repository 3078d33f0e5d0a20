"""A bad request gets a problem as its answer, which names the mistake."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import httpx2
import pytest

from tests.over_http.exchange import assert_problem, classify, png


def _huge_png_header() -> bytes:
    """The header, without pixels, of a PNG of 30000 x 30000 pixels."""
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


def test_a_picture_of_a_kind_that_is_not_read(client: httpx2.Client) -> None:
    assert_problem(classify(client, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), 415, "this is HEIC")


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_wrong_content_type(client: httpx2.Client, kind: str) -> None:
    answer = client.post("/classify?model=xception", content=b"x", headers={"Content-Type": kind})
    assert_problem(answer, 415, kind)


def test_unknown_model(client: httpx2.Client) -> None:
    assert_problem(classify(client, png(), model="resnet"), 404, "there is inception_v4, xception")
    assert_problem(client.get("/models/resnet"), 404, "resnet")


def test_unknown_version(client: httpx2.Client) -> None:
    assert_problem(classify(client, png(), version=99), 404, "no version 99 of xception")


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
    assert_problem(classify(client, png(), **parameters), 422, detail)


def test_an_unknown_priority_is_named(client: httpx2.Client) -> None:
    answer = client.post("/classify?model=xception", content=png(), headers={"X-Priority": "urgent"})
    assert_problem(answer, 422, "'high', 'normal' or 'low'")


def test_of_a_header_sent_twice_the_first_counts(client: httpx2.Client) -> None:
    headers = [("X-Request-Timeout-Ms", "no"), ("X-Request-Timeout-Ms", "1000")]
    assert_problem(client.post("/classify?model=xception", content=png(), headers=headers), 422, "valid integer")


def test_unknown_path_and_method(client: httpx2.Client) -> None:
    assert_problem(client.get("/nothing"), 404, "Not Found")
    assert_problem(client.get("/classify"), 405, "Method Not Allowed")
