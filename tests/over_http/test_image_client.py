"""The calls that NVIDIA's sample image_client makes: it learns from the server how to make a picture into pixels.

The sample takes a model only if metadata and configuration describe one input of one image and one output of scores.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import triton_to_np_dtype

from tests.server import Server

Photos = list[tuple[bytes, str]]


class Model(NamedTuple):
    """What the sample reads of a model."""

    most: int
    input: str
    output: str
    height: int
    width: int
    datatype: str


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), concurrency=3) as open_client:
        yield open_client


@pytest.fixture(scope="module")
def model(client: triton.InferenceServerClient) -> Model:
    described, configured = client.get_model_metadata("xception", "1"), client.get_model_config("xception", "1")
    (tensor,), (scores,), (layout,) = described["inputs"], described["outputs"], configured["input"]
    assert configured["max_batch_size"] > 0  # so the first dimension of each shape is the batch's
    assert scores["datatype"] == "FP32"
    assert sum(size != 1 for size in scores["shape"][1:]) == 1
    assert layout["format"] == "FORMAT_NHWC"
    height, width, channels = tensor["shape"][1:]
    assert (channels, len(configured["output"])) == (3, 1)
    return Model(configured["max_batch_size"], tensor["name"], scores["name"], height, width, str(tensor["datatype"]))


def pixels(model: Model, photo: bytes) -> NDArray[np.generic]:
    square = Image.open(io.BytesIO(photo)).convert("RGB").resize((model.width, model.height), Image.Resampling.BILINEAR)
    return np.array(square).astype(triton_to_np_dtype(model.datatype))


def batches(photos: Photos, size: int) -> Iterator[Photos]:
    """Yield batches of ``size`` until every photo is in one. The last batch is filled up from the beginning."""
    endless = itertools.cycle(photos)
    for _ in range(0, len(photos), size):
        yield list(itertools.islice(endless, size))


def asked(
    model: Model, batch: Photos, classes: int
) -> tuple[list[triton.InferInput], list[triton.InferRequestedOutput]]:
    images = np.stack([pixels(model, photo) for photo, _ in batch])
    tensor = triton.InferInput(model.input, images.shape, model.datatype)
    tensor.set_data_from_numpy(images)
    return [tensor], [triton.InferRequestedOutput(model.output, class_count=classes)]


def first_labels(model: Model, found: triton.InferResult) -> list[str]:
    rows: Sequence[Sequence[bytes]] = found.as_numpy(model.output)
    return [row[0].decode().split(":")[2] for row in rows]


@pytest.mark.parametrize("size", [1, 4, 32])
def test_batches_of_files(client: triton.InferenceServerClient, model: Model, labelled: Photos, size: int) -> None:
    assert size <= model.most
    for batch in batches(labelled, size):
        inputs, outputs = asked(model, batch, 1)
        found = client.infer("xception", inputs, model_version="1", outputs=outputs)
        assert first_labels(model, found) == [label for _, label in batch]


def test_asynchronous_requests(client: triton.InferenceServerClient, model: Model, labelled: Photos) -> None:
    waiting = []
    for number, batch in enumerate(batches(labelled[:6], 2)):
        inputs, outputs = asked(model, batch, 3)
        sent = client.async_infer("xception", inputs, request_id=str(number), model_version="1", outputs=outputs)
        waiting.append((str(number), batch, sent))
    for name, batch, sent in waiting:
        found = sent.get_result()
        assert found.get_response()["id"] == name
        assert found.as_numpy(model.output).shape == (2, 3)
        assert first_labels(model, found) == [label for _, label in batch]


def test_scores_fall_and_have_six_decimals(
    client: triton.InferenceServerClient, model: Model, labelled: Photos
) -> None:
    inputs, outputs = asked(model, labelled[:1], 6)
    (row,) = client.infer("xception", inputs, outputs=outputs).as_numpy(model.output)
    scores = [text.decode().split(":")[0] for text in row]
    assert all(len(score.partition(".")[2]) == 6 for score in scores)
    assert [float(score) for score in scores] == sorted(map(float, scores), reverse=True)
    assert sum(map(float, scores)) == pytest.approx(1, abs=1e-4)
