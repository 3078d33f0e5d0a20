"""KServe's own client over gRPC."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Mapping

import grpc
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from numpy.typing import NDArray
from PIL import Image

from bench.server import Server
from tests.clients.conftest import Sample

pytestmark = [pytest.mark.clients, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    return {"grpc_port": 0}


@pytest.fixture
async def client(server: Server) -> AsyncIterator[InferenceGRPCClient]:
    async with InferenceGRPCClient(server.grpc_address) as open_client:
        yield open_client


def picture(data: bytes) -> NDArray[np.object_]:
    return np.array([data], dtype=np.object_)


def pixels(photo: bytes) -> NDArray[np.uint8]:
    square = Image.open(io.BytesIO(photo)).convert("RGB").resize((299, 299), Image.Resampling.BICUBIC)
    return np.asarray(square)[None]


def request(values: NDArray[np.generic], datatype: str, *, raw: bool) -> InferRequest:
    tensor = InferInput("images", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=raw)
    return InferRequest("xception", [tensor], request_id="mine")


async def test_health(client: InferenceGRPCClient) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("xception")
    assert not await client.is_model_ready("nobody")


@pytest.mark.parametrize(
    ("made", "datatype", "raw"), [(picture, "BYTES", True), (pixels, "UINT8", True), (pixels, "UINT8", False)]
)
async def test_a_photo_is_named(
    client: InferenceGRPCClient,
    sample: Sample,
    labels: list[str],
    made: Callable[[bytes], NDArray[np.generic]],
    datatype: str,
    raw: bool,
) -> None:
    answer = await client.infer(request(made(sample.photo), datatype, raw=raw))
    assert (answer.id, answer.model_name) == ("mine", "xception")
    (probabilities,) = answer.outputs[0].as_numpy()
    assert labels[int(probabilities.argmax())] == sample.label


async def test_an_error_says_what_was_wrong(client: InferenceGRPCClient) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await client.infer(request(picture(b"no picture"), "BYTES", raw=True))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not an image" in caught.value.details()
