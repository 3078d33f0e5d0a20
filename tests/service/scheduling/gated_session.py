"""A real batcher with fake sessions that wait at a gate. A test decides when and how each batch ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from service.metrics import Metrics
from service.scheduling.admission import Answer, Decoding
from service.scheduling.batch_queue import BatchQueue, Priority, Terms
from service.scheduling.batcher import Batcher, Served
from service.scheduling.cost_model import CostModel
from service.scheduling.pixel_slab import PixelSlab
from service.scheduling.scheduler import Model

PATIENCE_S = 10.0  # a test that hangs fails after so many seconds


class GatedSession:
    """Answers each image with its first byte, once the test lets the batch through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.result: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = self.echo

    @staticmethod
    def echo(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images[:, 0, 0, :1].astype(np.float32)

    @staticmethod
    def crash(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("out of memory")

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(images[:, 0, 0, 0].tolist())
        self.entered.release()
        assert self.gate.acquire(timeout=PATIENCE_S)
        return self.result(images)

    async def running(self) -> None:
        """Wait until the next batch is inside ``run``."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE_S)


class GatedDecoder:
    """Decodes nothing, and ends when the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, _: NDArray[np.uint8]) -> None:
        self.entered.set()
        assert self.go_on.wait(PATIENCE_S)

    async def running(self) -> None:
        """Wait until a decoder thread is inside this call."""
        assert await asyncio.to_thread(self.entered.wait, PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until a decoder's or a session's thread has made ``condition`` true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


def serving(*sessions: GatedSession, max_queue: int = 20, rows: int = 40, seconds: float = 0.001) -> Served:
    """A model with one session for each slot."""
    cost = CostModel(dict.fromkeys((1, 2, 4, 8), seconds) | {8: seconds * 1.001})
    model = Model("fake", sessions, BatchQueue(cost, max_queue))

    def probe() -> None:
        for session in sessions:
            session.result(np.zeros((1, 1, 1, 3), np.uint8))

    return Served(model, PixelSlab(rows, 8, 1, 1, slots=len(sessions)), probe)


class DecodingBatcher(Batcher):
    """A batcher and the threads that decode for it."""

    def __init__(self, decode_threads: int) -> None:
        super().__init__(Metrics(), probe_interval_s=0.001)
        self.decoders = ThreadPoolExecutor(decode_threads)


@asynccontextmanager
async def batching(*models: Served, decode_threads: int = 2) -> AsyncIterator[DecodingBatcher]:
    batcher = DecodingBatcher(decode_threads)
    for one in models:
        batcher.add(one)
    try:
        yield batcher
    finally:
        for one in models:
            for session in one.model.sessions:
                assert isinstance(session, GatedSession)
                session.gate.release(1000)
        await asyncio.to_thread(batcher.close)
        batcher.decoders.shutdown()


async def ask(
    batcher: DecodingBatcher,
    to: Served,
    value: int,
    *,
    priority: Priority = Priority.NORMAL,
    decode: Callable[[NDArray[np.uint8]], None] | None = None,
) -> Answer:
    def fill(pixels: NDArray[np.uint8]) -> None:
        pixels[...] = value

    deadline = asyncio.get_running_loop().time() + 1000.0
    decoding = Decoding(batcher.decoders, decode or fill)
    return (await batcher.classify(to, [decoding], Terms(deadline, priority)))[0]


async def queued(batcher: DecodingBatcher, to: Served, *values: int) -> list[asyncio.Task[Answer]]:
    """Start a request for each value, and return when all images are decoded and wait for a batch."""
    decoded = len(to.model.queue) + len(values)
    tasks = [asyncio.ensure_future(ask(batcher, to, value)) for value in values]
    await until(lambda: to.model.queue.ready == decoded)
    return tasks
