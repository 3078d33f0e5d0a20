"""KServe's own client over HTTP."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from numpy.typing import NDArray
from PIL import Image

from bench.server import Server
from tests.clients.conftest import Sample

pytestmark = [pytest.mark.clients, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client() -> AsyncIterator[InferenceRESTClient]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as open_client:
        yield open_client


def pixels(photo: bytes) -> NDArray[np.uint8]:
    square = Image.open(io.BytesIO(photo)).convert("RGB").resize((299, 299), Image.Resampling.BICUBIC)
    return np.asarray(square)[None]


def request(values: NDArray[np.generic], datatype: str, *, binary: bool) -> InferRequest:
    tensor = InferInput("images", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest("xception", [tensor], request_id="mine")


def best(output: InferOutput, labels: list[str]) -> str:
    (probabilities,) = output.as_numpy()
    return labels[int(probabilities.argmax())]


async def test_health(server: Server, client: InferenceRESTClient) -> None:
    assert await client.is_server_live(server.url) is True
    assert await client.is_server_ready(server.url) is True
    assert await client.is_model_ready(server.url, "xception")
    assert not await client.is_model_ready(server.url, "nobody")


@pytest.mark.parametrize("binary", [True, False])
async def test_pixels(
    server: Server, client: InferenceRESTClient, sample: Sample, labels: list[str], binary: bool
) -> None:
    asked = request(pixels(sample.photo), "UINT8", binary=binary)
    answer = await client.infer(server.url, asked, "xception")
    assert (answer.id, answer.model_name) == ("mine", "xception")
    assert best(answer.outputs[0], labels) == sample.label


async def test_a_picture_is_decoded_by_the_server(
    server: Server, client: InferenceRESTClient, sample: Sample, labels: list[str]
) -> None:
    asked = request(np.array([sample.photo], dtype=np.object_), "BYTES", binary=True)
    answer = await client.infer(server.url, asked, "xception")
    assert best(answer.outputs[0], labels) == sample.label


async def test_an_error_says_what_was_wrong(server: Server, client: InferenceRESTClient) -> None:
    broken = request(np.array([b"no picture"], dtype=np.object_), "BYTES", binary=True)
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        await client.infer(server.url, broken, "xception")
    with pytest.raises(httpx.HTTPStatusError, match="no model 'nobody'"):
        await client.infer(server.url, broken, "nobody")
