"""Every query of the dashboard and of the rules finds a number in the metrics of a real server.

The test scrapes the server before and after some traffic. promtool repeats the difference every minute and answers the
queries.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.programs import promtool
from tests.server import Server, serving

RULES = Path("docker/prometheus-rules.yml")
DATASOURCES = Path("docker/grafana/provisioning/datasources/prometheus.yml")
DASHBOARD = json.loads(Path("docker/grafana/dashboards/inferception.json").read_text(encoding="utf-8"))
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
RECORDED = {
    rule["record"]: rule["expr"]
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "record" in rule
}
QUERIES = [target["expr"].replace("$__rate_interval", "5m") for target in TARGETS] + list(RECORDED)
ADDED_BY_PROMETHEUS = {"job": "inferception", "instance": "service:8000"}

Scrape = dict[str, tuple[str, dict[str, str], float]]  # by series: its type, its labels, its value


@pytest.fixture(scope="module")
def series(model_repository: Path, kitchenware_photos: list[tuple[Path, str | None]]) -> list[dict[str, str]]:
    """The metrics that the server exposed, as promtool's input series."""
    photo = kitchenware_photos[0][0].read_bytes()
    with serving(model_repository, max_batch_size=2, default_model="xception") as server, server.client() as client:
        before = scrape(client)
        send_all_sorts(server, client, photo)
        for _ in range(1000):  # until the server has noticed that the client left
            after = scrape(client)
            if any("disconnected_total" in name for name in after):
                break
    lines = [{"series": 'up{job="inferception", instance="service:8000"}', "values": "1x20"}]
    for name, (kind, _, value) in after.items():
        step = value - (before[name][2] if name in before else 0)
        lines.append({"series": name, "values": f"{value}x20" if kind == "gauge" else f"{value}+{step}x20"})
    return lines


def scrape(client: httpx2.Client) -> Scrape:
    return {
        f"{sample.name}{{{', '.join(f'{k}={json.dumps(v)}' for k, v in labels.items())}}}": (
            family.type, labels, sample.value,
        )
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        for labels in [sample.labels | ADDED_BY_PROMETHEUS]
    }  # fmt: skip


def send_all_sorts(server: Server, client: httpx2.Client, photo: bytes) -> None:
    """Cause right answers, errors, a refusal, a passed deadline and a client that leaves."""
    jpeg = {"Content-Type": "image/jpeg"}
    statuses = [
        client.post("/classify", content=photo, headers=jpeg).status_code,
        client.post("/classify", files=[("file", photo)] * 3).status_code,
        client.post("/classify", content=b"no photo", headers=jpeg).status_code,
        client.post("/classify?timeout_ms=1", content=photo, headers=jpeg).status_code,
    ]
    assert statuses == [200, 200, 400, 429]
    headers = b"Host: a\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n"  # and no body
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as late:
        late.sendall(b"POST /classify?timeout_ms=3000 HTTP/1.1\r\n" + headers)
        assert late.recv(12) == b"HTTP/1.1 504"
    with socket.create_connection((address.hostname, address.port)) as leaver:
        leaver.sendall(b"POST /classify HTTP/1.1\r\n" + headers)


@pytest.fixture
def finds(series: list[dict[str, str]], tmp_path: Path) -> Callable[[str], bool]:
    """A function that tells whether a query gives at least one number other than NaN."""

    def ask(query: str) -> bool:
        expected = {
            "expr": f"count(({query}) > -Inf) > bool 0",
            "eval_time": "20m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        tests = [{"interval": "1m", "input_series": series, "promql_expr_test": [expected]}]
        plan = {"rule_files": [str(RULES.absolute())], "evaluation_interval": "1m", "tests": tests}
        file = tmp_path / "plan.yml"
        file.write_text(json.dumps(plan))
        return promtool("test", "rules", file).returncode == 0

    return ask


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_finds_something(finds: Callable[[str], bool], query: str) -> None:
    assert finds(query)


@pytest.mark.parametrize(
    "query",
    [
        "inferception_nothing_total",
        'inferception_requests_total{path="/nothing"}',
        "rate(inferception_requests_total[5m]) / 0 * 0",
        "sum(",
    ],
)
def test_a_query_for_what_is_not_there_finds_nothing(finds: Callable[[str], bool], query: str) -> None:
    assert not finds(query)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["expr"])
def test_labels_are_those_of_the_metrics(series: list[dict[str, str]], target: dict[str, str]) -> None:
    """A missing label would group all series into one, and would show as an empty legend."""
    grouped = ",".join(re.findall(r"(?:by|on) \((.*?)\)", target["expr"]))
    named = set(re.findall(r"\w+", grouped)) | set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    metrics = tuple(re.findall(r"\b(?:inferception|process)_\w+", target["expr"]))
    exposed = [line["series"] for line in series if line["series"].startswith(metrics)]
    assert {label for label in named if not any(f'{label}="' in name for name in exposed)} == set()


def test_alerts_and_their_tests_name_what_is_exposed(series: list[dict[str, str]]) -> None:
    exposed = {line["series"].partition("{")[0] for line in series} | set(RECORDED)
    for file in (RULES, Path("tests/deploy/rules.yml")):
        named = set(re.findall(r"\binferception[_:][\w:]+", file.read_text(encoding="utf-8")))
        assert named <= exposed


def test_the_dashboard_is_in_order() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    (source,) = yaml.safe_load(Path("docker/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert {(panel["datasource"]["type"], panel["datasource"]["uid"]) for panel in panels} == {
        (source["type"], source["uid"])
    }
    cells = [
        (column, row)
        for box in (panel["gridPos"] for panel in panels)
        for column in range(box["x"], box["x"] + box["w"])
        for row in range(box["y"], box["y"] + box["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(column for column, _ in cells) < 24
