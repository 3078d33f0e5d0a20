"""A server behind a proxy that takes a path prefix away, asked by pages of another origin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.over_http.exchange import classify, png
from tests.server import serving

ORIGIN = "https://a.example"


@pytest.fixture(scope="module")
def proxied(model_repository: Path) -> Iterator[httpx2.Client]:
    settings = {"root_path": "/api/v1", "cors_origins": f"{ORIGIN},http://localhost:3000", "max_batch_size": 1}
    with serving(model_repository, **settings) as server, server.client() as client:
        yield client


def test_a_path_prefix_is_in_the_urls_that_the_server_makes(proxied: httpx2.Client) -> None:
    assert classify(proxied, png()).status_code == 200
    assert proxied.get("/openapi.json").json()["servers"] == [{"url": "/api/v1"}]
    for page in ("/", "/docs"):  # what a page names is relative, so it is found behind any prefix
        assert 'src="page/' in proxied.get(page).text
        assert not re.search("""(?:src|href)=["'](?:/|\\w+:)""", proxied.get(page).text)
    assert 'path="/classify"' in proxied.get("/metrics").text


def test_a_preflight_is_answered_without_a_model(proxied: httpx2.Client) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-priority,content-encoding"}
    answer = proxied.options("/classify", headers={"Origin": ORIGIN, **asks})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-headers"] == "x-priority,content-encoding"
    assert proxied.options("/classify", headers={"Origin": "https://b.example", **asks}).status_code == 400


@pytest.mark.parametrize("model", ["xception", "none"])
def test_a_page_may_read_every_answer_and_its_headers(proxied: httpx2.Client, model: str) -> None:
    answer = proxied.post(f"/classify?model={model}", content=png(), headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-expose-headers"] == "X-Request-Id, Server-Timing, Retry-After"
    stranger = proxied.post(f"/classify?model={model}", content=png(), headers={"Origin": "https://b.example"})
    assert "access-control-allow-origin" not in stranger.headers


def test_no_page_may_ask_by_default(client: httpx2.Client) -> None:
    answer = client.get("/models", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/classify", headers={"Origin": ORIGIN}).status_code == 405
