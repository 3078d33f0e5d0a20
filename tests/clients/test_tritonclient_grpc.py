"""NVIDIA's own client over gRPC: unary, asynchronous, streaming."""

from __future__ import annotations

import io
import queue
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from bench.server import Server
from tests.clients.conftest import Sample

pytestmark = pytest.mark.clients
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    return {"grpc_port": 0}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_address) as open_client:
        yield open_client


def tensor(values: NDArray[np.generic], datatype: str) -> triton.InferInput:
    made = triton.InferInput("images", list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def files(*data: bytes) -> list[triton.InferInput]:
    return [tensor(np.array(data, dtype=np.object_), "BYTES")]


def pixels(photo: bytes) -> list[triton.InferInput]:
    square = Image.open(io.BytesIO(photo)).convert("RGB").resize((299, 299), Image.Resampling.BICUBIC)
    return [tensor(np.asarray(square)[None], "UINT8")]


def best_of(count: int) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput("probabilities", class_count=count)]


def labels_of(found: Any) -> list[str]:
    return [row[0].decode().split(":", 2)[2] for row in found.as_numpy("probabilities")]


def test_it_describes_the_server_and_the_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("xception", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata(as_json=True)["name"] == "inferception"
    (found,) = client.get_model_metadata("xception", as_json=True)["inputs"]
    assert found == {"name": "images", "datatype": "UINT8", "shape": ["-1", "299", "299", "3"]}
    configuration = client.get_model_config("xception").config
    assert (configuration.max_batch_size, list(configuration.input[0].dims)) == (32, [299, 299, 3])
    assert configuration.input[0].format == configuration.input[0].FORMAT_NHWC
    index = client.get_model_repository_index().models
    assert {entry.name: entry.state for entry in index} == {"xception": "READY", "inception_v4": "READY"}


def test_pixels_and_pictures_are_named(client: triton.InferenceServerClient, sample: Sample) -> None:
    for inputs in (pixels(sample.photo), files(sample.photo)):
        found = client.infer("xception", inputs, request_id="mine")
        probabilities = found.as_numpy("probabilities")
        assert (probabilities.shape, found.get_response().id) == ((1, 6), "mine")
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-3)
        assert labels_of(client.infer("xception", inputs, outputs=best_of(2))) == [sample.label]


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_a_request_may_be_compressed(client: triton.InferenceServerClient, sample: Sample, compression: str) -> None:
    inputs = pixels(sample.photo)
    found = client.infer("xception", inputs, outputs=best_of(1), compression_algorithm=compression)
    assert labels_of(found) == [sample.label]


def test_errors_have_their_codes(client: triton.InferenceServerClient, sample: Sample) -> None:
    with pytest.raises(InferenceServerException, match=r"\[StatusCode.NOT_FOUND\] no model 'nobody'"):
        client.infer("nobody", files(sample.photo))
    with pytest.raises(InferenceServerException, match=r"\[StatusCode.INVALID_ARGUMENT\] image 1: "):
        client.infer("xception", files(sample.photo, b"no picture"))
    with pytest.raises(InferenceServerException, match=r"\[StatusCode.(RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED)\]"):
        client.infer("xception", files(sample.photo), timeout=1000)  # microseconds
    with pytest.raises(InferenceServerException, match=r"\[StatusCode.(RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED)\]"):
        client.infer("xception", files(*[sample.photo] * 32), client_timeout=0.1)
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        client.get_system_shared_memory_status()


def test_more_than_grpc_s_own_limit_of_4_mib_is_taken(client: triton.InferenceServerClient) -> None:
    found = client.infer("xception", [tensor(np.zeros((32, 299, 299, 3), np.uint8), "UINT8")])
    assert found.as_numpy("probabilities").shape == (32, 6)


def test_statistics_count(client: triton.InferenceServerClient, sample: Sample) -> None:
    def counted() -> tuple[int, int]:
        (found,) = client.get_inference_statistics("xception").model_stats
        return found.inference_count, found.inference_stats.success.count

    images, requests = counted()
    client.infer("xception", files(sample.photo, sample.photo), priority=1)
    assert counted() == (images + 2, requests + 1)


def test_an_asynchronous_call(client: triton.InferenceServerClient, sample: Sample) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.async_infer("xception", files(sample.photo), lambda result, error: answers.put((result, error)))
    found, error = answers.get(timeout=PATIENCE_S)
    assert error is None
    assert found.as_numpy("probabilities").shape == (1, 6)


def test_a_stream_answers_in_order_and_outlives_a_broken_picture(
    client: triton.InferenceServerClient, sample: Sample
) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for name, data in (("0", sample.photo), ("1", b"no picture"), ("2", sample.photo)):
        client.async_stream_infer("xception", files(data), request_id=name, outputs=best_of(1))
    (first, _), (_, broken), (last, _) = (answers.get(timeout=PATIENCE_S) for _ in range(3))
    client.stop_stream()
    assert [found.get_response().id for found in (first, last)] == ["0", "2"]
    assert [labels_of(found) for found in (first, last)] == [[sample.label]] * 2
    assert first.get_response().parameters["triton_final_response"].bool_param
    assert "not an image" in str(broken)


@pytest.mark.anyio
async def test_the_asyncio_client(server: Server, sample: Sample) -> None:
    async with triton_aio.InferenceServerClient(server.grpc_address) as client:
        assert await client.is_server_ready()
        found = await client.infer("xception", files(sample.photo), outputs=best_of(1))
        assert labels_of(found) == [sample.label]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
