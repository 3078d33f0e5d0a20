"""NVIDIA's own client, blocking and asyncio, against a real server."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.server import Server

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
Photos = list[tuple[bytes, str]]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as open_client:
        yield open_client


def pixels(photos: Photos) -> NDArray[np.uint8]:
    squares = [Image.open(io.BytesIO(data)).resize((299, 299), Image.Resampling.BICUBIC) for data, _ in photos]
    return np.stack([np.asarray(square.convert("RGB")) for square in squares])


def tensor(values: NDArray[np.generic], datatype: str, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("images", list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def files(photos: Photos, *, column: bool = False) -> triton.InferInput:
    elements = np.array([data for data, _ in photos], dtype=np.object_)
    return tensor(elements.reshape(-1, 1) if column else elements, "BYTES")


def labels_of(found: triton.InferResult) -> list[str]:
    best = [row[0] for row in found.as_numpy("probabilities")]  # texts in JSON, bytes in a binary tensor
    return [(text.decode() if isinstance(text, bytes) else text).split(":", 2)[2] for text in best]


def classes(count: int, *, binary: bool = True) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=count)]


def test_it_describes_the_server_and_the_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("xception")
    assert not client.is_model_ready("nobody")
    described = client.get_server_metadata()
    project = tomllib.loads(PROJECT.read_text())["project"]
    assert (described["name"], described["version"]) == (project["name"], project["version"])
    (found,) = client.get_model_metadata("xception", "1")["inputs"]
    assert found == {"name": "images", "datatype": "UINT8", "shape": [-1, 299, 299, 3]}
    configuration = client.get_model_config("xception")
    assert (configuration["max_batch_size"], configuration["input"][0]["dims"]) == (32, [299, 299, 3])
    index = client.get_model_repository_index()
    assert {entry["name"]: entry["state"] for entry in index} == {"xception": "READY", "inception_v4": "READY"}
    assert client.get_system_shared_memory_status() == []


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_are_named_in_order(client: triton.InferenceServerClient, labelled: Photos, binary: bool) -> None:
    photos = labelled[:2]
    found = client.infer("xception", [tensor(pixels(photos), "UINT8", binary=binary)], request_id="mine")
    probabilities = found.as_numpy("probabilities")
    assert (probabilities.shape, found.get_response()["id"]) == ((2, 6), "mine")
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-3)
    named = client.infer("xception", [tensor(pixels(photos), "UINT8")], outputs=classes(2, binary=binary))
    assert labels_of(named) == [label for _, label in photos]
    assert named.as_numpy("probabilities").shape == (2, 2)


@pytest.mark.parametrize("column", [False, True])
def test_pictures_are_decoded_by_the_server(
    client: triton.InferenceServerClient, labelled: Photos, column: bool
) -> None:
    found = client.infer("xception", [files(labelled, column=column)], outputs=classes(1))
    assert labels_of(found) == [label for _, label in labelled]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_requests_and_answers_may_be_compressed(
    client: triton.InferenceServerClient, labelled: Photos, coding: str
) -> None:
    found = client.infer(
        "xception",
        [tensor(pixels(labelled), "UINT8")],
        outputs=classes(6, binary=False),
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert labels_of(found) == [label for _, label in labelled]


def test_a_broken_picture_fails_the_request_and_is_named(
    client: triton.InferenceServerClient, labelled: Photos
) -> None:
    with pytest.raises(InferenceServerException, match=r"\[400\] image 1: "):
        client.infer("xception", [files([labelled[0], (b"no picture", ""), labelled[1]])])


def test_more_images_than_a_request_may_hold(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"\[400\] a request of 33 images: it must have 1 to 32"):
        client.infer("xception", [tensor(np.zeros((33, 299, 299, 3), np.uint8), "UINT8")])


def test_a_timeout_is_in_microseconds(client: triton.InferenceServerClient, labelled: Photos) -> None:
    with pytest.raises(InferenceServerException, match=r"\[(429|504)\]"):
        client.infer("xception", [files(labelled[:1])], timeout=1000)
    assert labels_of(
        client.infer("xception", [files(labelled[:1])], outputs=classes(1), timeout=20_000_000, priority=1)
    )


def test_what_the_server_has_not_is_said(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"\[501\] shared memory is not supported"):
        client.register_system_shared_memory("region", "/region", 10)
    with pytest.raises(InferenceServerException, match=r"\[501\]"):
        client.get_log_settings()


def test_statistics_count_requests_images_and_batches(client: triton.InferenceServerClient, labelled: Photos) -> None:
    def counted() -> tuple[int, int, int]:
        (found,) = client.get_inference_statistics("xception")["model_stats"]
        stages = found["inference_stats"]
        assert all(isinstance(stages[name][unit], int) for name in stages for unit in ("count", "ns"))
        assert len(stages) == 8
        assert sum(batch["compute_infer"]["count"] for batch in found["batch_stats"]) == found["execution_count"]
        return found["inference_count"], stages["success"]["count"], stages["fail"]["count"]

    images, succeeded, failed = counted()
    client.infer("xception", [files(labelled)])
    with pytest.raises(InferenceServerException):
        client.infer("xception", [files([(b"no picture", "")])])
    assert counted() == (images + 9, succeeded + 1, failed + 1)


@pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes:ResourceWarning")  # of tritonclient
@pytest.mark.anyio
async def test_the_asyncio_client_reads_every_answer(server: Server, labelled: Photos) -> None:
    async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("xception"))["name"] == "xception"
        found = await client.infer("xception", [tensor(pixels(labelled), "UINT8")], outputs=classes(6, binary=False))
        assert labels_of(found) == [label for _, label in labelled]
        with pytest.raises(InferenceServerException, match=r"\[404\]"):
            await client.get_model_metadata("nobody")
