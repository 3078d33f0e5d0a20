"""Tests on a GPU. ``make test-gpu`` exports Xception with kitchenware weights in fp32 and fp16, and runs them."""

from __future__ import annotations

from ctypes.util import find_library
from pathlib import Path

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray

from service.inference.image import decode
from service.inference.manifest import Manifest, checked_file, read_manifest
from service.inference.placement import place
from service.settings import Settings
from tests.server import serving

pytestmark = pytest.mark.gpu
DEVICES = ["cuda", *(["tensorrt"] if find_library("nvinfer") else [])]
# The largest allowed difference of a probability. fp16 differed by 0.002 on a CPU, which rounds as often as a GPU but
# sums in fp32.
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2}


@pytest.fixture(scope="module")
def folder(model_repository: Path) -> Path:
    return model_repository / "xception" / "1"


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


@pytest.fixture(scope="module")
def golden(folder: Path, manifest: Manifest) -> NDArray[np.uint8]:
    pixels = np.empty((len(manifest.golden), 299, 299, 3), np.uint8)
    for sample, row in zip(manifest.golden, pixels, strict=True):
        decode(checked_file(folder, sample).read_bytes(), row, manifest.preprocessing, 50_000_000)
    return pixels


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("device", DEVICES)
def test_it_answers_as_the_cpu_does(
    folder: Path, manifest: Manifest, golden: NDArray[np.uint8], device: str, precision: str
) -> None:
    (cpu,) = place(folder, manifest, Settings(device="cpu", precision="fp32")).sessions
    placed = place(folder, manifest, Settings.model_validate({"device": device, "precision": precision}))
    assert "CPUExecutionProvider" not in placed.nodes
    for size in Settings(max_batch_size=8).batch_sizes:
        images = np.resize(golden, (size, *golden.shape[1:]))
        difference = np.abs(placed.sessions[0].run(images) - cpu.run(images)).max()
        assert difference < TOLERANCE[precision], f"a batch of {size}"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_cuda_graphs_answer_as_single_kernels_do(
    folder: Path, manifest: Manifest, golden: NDArray[np.uint8], precision: str
) -> None:
    settings = Settings.model_validate({"device": "cuda", "precision": precision, "max_batch_size": 8})
    (single,) = place(folder, manifest, settings).sessions
    (graphs,) = place(folder, manifest, settings.model_copy(update={"cuda_graphs": True})).sessions
    for first in range(3):  # each size runs again after all others, with other photos
        for size in settings.batch_sizes:
            images = np.resize(np.roll(golden, first, axis=0), (size, *golden.shape[1:]))
            difference = np.abs(graphs.run(images) - single.run(images)).max()
            assert difference < TOLERANCE[precision], f"a batch of {size}"


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_it_serves_in_half_precision(folder: Path, manifest: Manifest, cuda_graphs: bool) -> None:
    with serving(folder.parent.parent, device="cuda", default_model="xception", cuda_graphs=cuda_graphs) as server:
        model = httpx2.get(f"{server.url}/models/xception").json()
        assert (model["provider"], model["precision"]) == ("CUDAExecutionProvider", "fp16")
        assert set(model["nodes"]) == {"CUDAExecutionProvider"}
        for sample in manifest.golden:
            photo = checked_file(folder, sample).read_bytes()
            answer = httpx2.post(f"{server.url}/classify", content=photo, headers={"Content-Type": "image/jpeg"}).json()
            assert answer["predictions"][0]["label"] == sample.top_k[0]["label"]
