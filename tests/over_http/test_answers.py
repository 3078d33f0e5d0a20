"""Photos get the right labels alone, several in a request, or in a batch, and answers say how they were made."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.over_http.exchange import classify, label_of, png
from tests.server import Server, serving


def test_every_labelled_photo_is_named_right(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    assert [label_of(classify(client, data)) for data, _ in labelled] == [label for _, label in labelled]


def test_every_labelled_photo_is_named_right_in_full_precision(
    model_repository: Path, labelled: list[tuple[bytes, str]]
) -> None:
    with serving(model_repository, precision="fp32", decode="exact") as server, server.client() as client:
        answers = [classify(client, data) for data, _ in labelled]
    assert [label_of(answer) for answer in answers] == [label for _, label in labelled]
    assert {answer.json()["precision"] for answer in answers} == {"fp32"}


def test_the_answer_says_what_when_and_how(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    answer = classify(client, labelled[0][0], top_k=3)
    body = answer.json()
    assert body["model"] == "xception"
    assert body["version"] == 1
    assert body["precision"] == client.get("/models/xception").json()["precision"]
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
    answer = classify(client, png(), model="inception_v4").json()
    assert answer["trained"] == models["inception_v4"]["trained"]
    assert models["inception_v4"]["trained"] == (not any("RANDOM weights" in line for line in server.output))


def test_several_files_are_answered_in_order(client: httpx2.Client, labelled: list[tuple[bytes, str]]) -> None:
    files = [("file", (f"{i}.jpg", data, "image/jpeg")) for i, (data, _) in enumerate(labelled)]
    results = client.post("/classify", params={"model": "xception"}, files=files).json()["results"]
    assert [result["file"] for result in results] == [f"{i}.jpg" for i in range(len(labelled))]
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
    """The test starts its own server: while another model is in use, the server keeps batches short."""
    rounds, clients = 6, 16
    together = threading.Barrier(clients)

    def client_run(number: int) -> list[int]:
        data, label = labelled[number % len(labelled)]
        sizes = []
        with fresh.client() as client:
            together.wait(30)
            for _ in range(rounds):
                answer = classify(client, data, timeout_ms=30_000)
                assert label_of(answer) == label
                sizes.append(answer.json()["batch_size"])
        return sizes

    with serving(model_repository) as fresh, ThreadPoolExecutor(clients) as pool:
        sizes = [size for run in pool.map(client_run, range(clients)) for size in run]
    batches = sum(1 / size for size in sizes)  # an image in a batch of n counts as 1/n of a batch
    assert len(sizes) == rounds * clients
    assert len(sizes) / batches >= 4
