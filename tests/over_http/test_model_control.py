"""Clients load, unload and label models, by NVIDIA's client and by plain HTTP."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.server import Server, serving
from tests.service.version_copies import repository


@pytest.fixture(scope="module")
def models(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("models"), model_repository, 1)


@pytest.fixture(scope="module")
def controlled(models: Path) -> Iterator[Server]:
    with serving(models, repository="explicit", admin_api=True, device="cpu", precision="int8") as running:
        yield running


@pytest.fixture
def client(controlled: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(controlled.url.removeprefix("http://")) as open_client:
        yield open_client


def states(client: triton.InferenceServerClient) -> dict[str, str]:
    return {entry["version"]: entry["state"] for entry in client.get_model_repository_index()}


def test_a_client_swaps_versions_and_labels_them(
    client: triton.InferenceServerClient, controlled: Server, models: Path, model_repository: Path
) -> None:
    repository(models, model_repository, 2)
    assert states(client) == {"1": "READY", "2": "UNAVAILABLE"}
    client.load_model("xception")
    assert states(client) == {"1": "UNAVAILABLE", "2": "READY"}
    photo = (models / "xception" / "1" / "golden" / "0.jpg").read_bytes()
    with controlled.client() as http:
        labels = {"stable": 1, "canary": 2, "canary_share": 0.5}
        assert http.post("/v2/repository/models/xception/labels", json=labels).status_code == 200
        answers = [http.post("/classify", content=photo).json() for _ in range(6)]
        assert Counter(answer["version"] for answer in answers) == {1: 3, 2: 3}
        assert http.post("/classify?version=canary", content=photo).json()["version"] == 2
        assert http.get("/v2/models/xception/versions/stable").json()["versions"] == ["1", "2"]
        counted = http.get("/metrics").text
        assert 'images_total{model="xception",outcome="ok",version="1"} 3.0' in counted
        assert 'images_total{model="xception",outcome="ok",version="2"} 4.0' in counted
        wrong = http.post("/v2/repository/models/xception/labels", json={"canary": 9})
        assert (wrong.status_code, list(wrong.json())) == (404, ["error"])
        wrong = http.post("/v2/repository/models/xception/labels", json={"canary_share": 2})
        assert (wrong.status_code, "canary_share" in wrong.json()["error"]) == (400, True)
    client.unload_model("xception")
    assert states(client) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
    assert not client.is_model_ready("xception")
    assert client.is_server_ready()
    client.unload_model("nobody")
    client.load_model("xception")
    assert client.is_model_ready("xception", "1")


def test_what_cannot_be_loaded_is_an_error(client: triton.InferenceServerClient, models: Path) -> None:
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("nobody", "404", {}),
        ("xception", "400", {"config": "{}"}),
        ("xception", "400", {"config": "{}", "files": {"file:1/model.onnx": b"mine"}}),
    ]
    for name, status, options in cases:
        with pytest.raises(InferenceServerException) as caught:
            client.load_model(name, **options)
        assert caught.value.status() == status
    shutil.copytree(models / "xception" / "1", models / "broken" / "1", symlinks=True)
    with pytest.raises(InferenceServerException, match="describes xception version 1") as caught:
        client.load_model("broken")
    assert caught.value.status() == "503"
    assert str(models) not in str(caught.value)


def test_a_web_page_of_another_origin_controls_nothing(controlled: Server) -> None:
    with controlled.client() as http:
        refused = http.post("/v2/repository/models/xception/unload", headers={"Origin": "https://a.example"})
        assert (refused.status_code, "web page" in refused.json()["error"]) == (403, True)
        assert http.get("/v2/models/xception/ready").status_code == 200


@pytest.mark.parametrize("what", ["load", "unload", "labels"])
def test_nobody_controls_a_server_that_does_not_say_so(server: Server, what: str) -> None:
    with server.client() as http:
        refused = http.post(f"/v2/repository/models/xception/{what}", json={})
    assert (refused.status_code, "admin_api" in refused.json()["error"]) == (403, True)
