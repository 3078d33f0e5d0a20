"""A server that remembers answers: every door finds what another door's request left, and says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton

from tests.over_http.exchange import classify
from tests.server import Server, serving

Photos = list[tuple[bytes, str]]


@pytest.fixture(scope="module")
def remembering(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, cache_bytes=1_000_000, log_format="json") as running:
        yield running


@pytest.fixture
def client(remembering: Server) -> Iterator[httpx2.Client]:
    with remembering.client() as open_client:
        yield open_client


def counted(client: httpx2.Client, name: str) -> float:
    text = client.get("/metrics").text
    found = re.search(rf'^inferception_{name}{{model="xception"(?:,version="1")?}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def statistics(client: httpx2.Client) -> dict[str, Any]:
    (found,) = client.get("/v2/models/xception/stats").json()["model_stats"]
    counts = {name: duration["count"] for name, duration in found["inference_stats"].items()}
    return counts | {"images": found["inference_count"]}


def test_a_photo_that_comes_again_gets_the_same_answer(
    client: httpx2.Client, remembering: Server, labelled: Photos
) -> None:
    before = counted(client, "cache_hits_total")
    first = classify(client, labelled[0][0])
    again = client.post("/classify?model=xception&top_k=2", content=labelled[0][0], headers={"X-Request-Id": "again"})
    assert again.json()["predictions"] == first.json()["predictions"][:2]
    timing = again.json()["timing_ms"]
    assert (timing["decode"], timing["queue"], timing["infer"], again.json()["batch_size"]) == (0, 0, 0, 0)
    assert re.findall(r"(\w+);dur", again.headers["server-timing"]) == ["read", "cache", "total"]
    stages = re.findall(r"(\w+);dur", first.headers["server-timing"])
    assert stages == ["read", "cache", "decode", "queue", "infer", "total"]
    assert counted(client, "cache_hits_total") == before + 1
    assert counted(client, "cache_bytes") > 0
    (line,) = [line for line in remembering.output if '"again"' in line]
    assert '"cache_ms"' in line
    assert '"infer_ms"' not in line


def test_a_form_runs_what_is_not_remembered(client: httpx2.Client, labelled: Photos) -> None:
    known, new = labelled[1][0], labelled[2][0]
    alone = classify(client, known).json()["predictions"]
    parts = [("file", ("", part)) for part in (new, b"no picture", known)]
    ran, broken, hit = client.post("/classify?model=xception", files=parts).json()["results"]
    assert (ran["batch_size"], hit["batch_size"]) == (1, 0)
    assert hit["predictions"] == alone
    assert broken["error"]["status"] == 400
    answer = client.post("/classify?model=xception", files=parts)
    again = answer.json()["results"]
    assert [result.get("batch_size") for result in again] == [0, None, 0]
    assert again[1] == broken
    assert re.findall(r"(\w+);dur", answer.headers["server-timing"]) == ["read", "cache", "total"]


def test_nvidia_s_client_gets_what_classify_left(client: httpx2.Client, remembering: Server, labelled: Photos) -> None:
    photos = [photo for photo, _ in labelled[3:6]]
    alone = classify(client, photos[1]).json()["predictions"]
    before = statistics(client)
    with triton.InferenceServerClient(remembering.url.removeprefix("http://")) as nvidia:
        files = triton.InferInput("images", [3], "BYTES")
        files.set_data_from_numpy(np.array(photos, dtype=np.object_))
        first, again = (nvidia.infer("xception", [files]).as_numpy("probabilities") for _ in range(2))
        assert nvidia.get_model_config("xception")["response_cache"] == {"enable": True}
    assert first[1].max() == np.float32(alone[0]["probability"])
    assert again.tobytes() == first.tobytes()
    after = statistics(client)
    more = {name: after[name] - before[name] for name in after}
    assert more == dict.fromkeys(more, 1) | {"success": 2, "compute_output": 2, "fail": 0, "images": 2}


def test_of_identical_photos_at_a_time_one_runs(client: httpx2.Client, labelled: Photos) -> None:
    photo = labelled[6][0]
    hits, ran = counted(client, "cache_hits_total"), counted(client, "batch_size_sum")
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: classify(client, photo).json(), range(8)))
    assert sorted(answer["batch_size"] for answer in answers) == [0] * 7 + [1]
    assert len({str(answer["predictions"]) for answer in answers}) == 1
    assert counted(client, "cache_hits_total") == hits + 7
    assert counted(client, "batch_size_sum") == ran + 1
