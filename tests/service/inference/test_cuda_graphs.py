"""Bindings, thread and order of CUDA graphs, tested on the CPU provider, which records no graphs.

test_gpu.py tests real CUDA graphs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from service.errors import DeviceUnavailable
from service.inference.devices import cpu
from service.inference.devices.cuda_graphs import CudaGraphs
from service.inference.session import session_options

SIZES = [1, 6, 3]


@pytest.fixture(scope="module")
def xception(model_repository: Path) -> Path:
    return model_repository / "xception" / "1" / "fp32.onnx"


@pytest.fixture(scope="module")
def graphs(xception: Path) -> CudaGraphs:
    return CudaGraphs(xception, cpu.PROVIDERS, session_options(2), SIZES, "cpu", 0)


@pytest.fixture
def batch() -> Callable[[int], NDArray[np.uint8]]:
    """A function that makes batches of noise, each different."""
    random = np.random.default_rng(0)
    return lambda size: random.integers(0, 256, (size, 299, 299, 3), np.uint8)


def test_each_size_answers_as_a_plain_session_does(
    graphs: CudaGraphs, xception: Path, batch: Callable[[int], NDArray[np.uint8]]
) -> None:
    plain = cpu.session(xception, threads=2)
    for size in (3, 1, 6, 1, 3):
        images = batch(size)
        np.testing.assert_allclose(graphs.run(images), plain.run(images), atol=1e-6)


def test_answers_stay_when_the_next_batch_runs(graphs: CudaGraphs, batch: Callable[[int], NDArray[np.uint8]]) -> None:
    first = graphs.run(batch(3))
    kept = first.copy()
    assert not np.array_equal(graphs.run(batch(3)), kept)
    np.testing.assert_array_equal(first, kept)


def test_another_size_is_an_error(graphs: CudaGraphs, batch: Callable[[int], NDArray[np.uint8]]) -> None:
    with pytest.raises(KeyError, match="2"):
        graphs.run(batch(2))


def test_one_thread_records_the_largest_size_first_and_replays_for_all_threads(
    xception: Path, batch: Callable[[int], NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[int, str, int]] = []
    run = ort.InferenceSession.run_with_iobinding

    def watched(session: ort.InferenceSession, binding: ort.IOBinding, options: ort.RunOptions) -> None:
        ran.append((threading.get_ident(), options.get_run_config_entry("gpu_graph_id"), id(binding)))
        run(session, binding, options)

    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", watched)
    graphs = CudaGraphs(xception, cpu.PROVIDERS, session_options(2), SIZES, "cpu", 0)
    graphs.run(batch(1))
    with ThreadPoolExecutor(1) as another:
        another.submit(graphs.run, batch(3)).result()
    threads, ids, bindings = zip(*ran, strict=True)
    assert len(set(threads)) == 1
    assert ids == ("6", "3", "1", "1", "3")
    assert bindings[3:] == (bindings[2], bindings[1])


def test_a_model_that_cannot_be_recorded_is_an_error(xception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", fails)
    with pytest.raises(DeviceUnavailable, match="can't record the model as CUDA graphs: operation not permitted"):
        CudaGraphs(xception, cpu.PROVIDERS, session_options(2), SIZES, "cpu", 0)
