"""The server's descriptions of itself and of each request."""

from __future__ import annotations

import httpx2

from tests.over_http.exchange import classify, png


def test_models_tell_provider_precision_and_origin(client: httpx2.Client) -> None:
    model = client.get("/models/xception").json()
    device = {"CPUExecutionProvider": "cpu", "OpenVINOExecutionProvider": "openvino"}[model["provider"]]
    assert list(model["nodes"]) == [model["provider"]]
    assert model["precision"] in ("fp32", "int8")
    assert f"{model['precision']} on {device} is fastest, give or take 10% (an image takes fp32 " in model["reason"]
    assert model["labels"] == 6
    assert model["ready"] is True
    assert "kitchenware" in model["weights"]
    assert set(model["batch_ms"]) == ({"1", "6"} if device == "cpu" else {"1", "3", "6"})


def test_health_metrics_and_docs(client: httpx2.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    classify(client, png())
    metrics = client.get("/metrics").text
    assert 'inferception_requests_total{model="xception",path="/classify",status="200"}' in metrics
    model = client.get("/models/xception").json()
    where = f'provider="{model["provider"]}",version="1"}}'
    assert f'inferception_model_ready{{model="xception",precision="{model["precision"]}",{where} 1.0' in metrics
    assert f'inferception_model_nodes{{model="xception",{where} {model["nodes"][model["provider"]]}.0' in metrics
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
