"""The files of the pages, and the endpoints that are there for the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.over_http.exchange import assert_problem, classify, png

PAGE = Path("service/http/page")


def value(figures: dict[str, Any], name: str, **labels: str) -> float:
    return float(sum(figure["value"] for figure in figures.get(name, []) if figure["labels"] == labels))


@pytest.mark.parametrize("path", ["/", "/docs", "/page/index.js", "/page/style.css", "/page/swagger/swagger-ui.css"])
def test_a_file_is_sent_once_and_then_only_confirmed(client: httpx2.Client, path: str) -> None:
    first = client.get(path)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(path).headers["content-length"] == first.headers["content-length"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_may_run_and_ask_nothing_of_another_origin(client: httpx2.Client, path: str) -> None:
    policy = client.get(path).headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script>|style=|\bon\w+=", client.get(path).text)


@pytest.mark.parametrize("path", ["/page/", "/page/none.js", "/page/..%2fapp.py", "/page//etc/passwd", "/page/%00"])
def test_nothing_else_is_sent(client: httpx2.Client, path: str) -> None:
    assert_problem(client.get(path), 404, "Not Found")


def test_the_page_is_small() -> None:
    assert sum(file.stat().st_size for file in PAGE.iterdir()) < 60_000


def test_the_page_loads_all_modules_at_once() -> None:
    preloaded = re.findall(r'rel="modulepreload" href="page/(\w+\.js)"', (PAGE / "index.html").read_text())
    assert preloaded == sorted({file.name for file in PAGE.glob("*.js")} - {"index.js", "docs.js"})


def test_a_golden_sample_is_the_picture_that_the_model_knows(client: httpx2.Client, model_repository: Path) -> None:
    best = client.get("/models/xception").json()["golden"]
    for number, recorded in enumerate(best):
        picture = client.get(f"/models/xception/golden/{number}?version=1")
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.content == (model_repository / f"xception/1/golden/{number}.jpg").read_bytes()
        assert classify(client, picture.content).json()["predictions"][0]["label"] == recorded["label"]
    assert_problem(client.get(f"/models/xception/golden/{len(best)}"), 404, f"has {len(best)} golden samples")
    assert_problem(client.get("/models/xception/golden/0?version=9"), 404, "no version 9")
    assert_problem(client.get("/models/none/golden/0"), 404, "no model 'none'")
    assert_problem(client.get("/models/xception/golden/labels.txt"), 422, "number")


def test_live_figures_are_those_of_the_metrics_and_looking_changes_none(client: httpx2.Client) -> None:
    first = client.get("/live").json()
    assert classify(client, png()).status_code == 200
    now, again = client.get("/live").json(), client.get("/live").json()
    assert first["time_s"] < now["time_s"] < again["time_s"]
    name = "inferception_stage_seconds_count"
    count = value(now["figures"], name, stage="infer")
    assert count == value(first["figures"], name, stage="infer") + 1
    assert f'{name}{{stage="infer"}} {count}' in client.get("/metrics").text
    for looked in (now, again):
        del looked["figures"]["process_resident_memory_bytes"]
    assert again["figures"] == now["figures"]
