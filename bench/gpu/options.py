"""The effect of onnxruntime's CUDA options on the rate: each entry changes the service's own options."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.gpu.record import Record, rate
from bench.gpu.setup import Setup
from bench.gpu.speed import BLOCK_S, ROUNDS
from bench.timing import in_turns
from service.inference.session import OnnxSession, Provider, session_options

CHANGES: dict[str, dict[str, str]] = {
    "as_the_service": {},
    "exhaustive": {"cudnn_conv_algo_search": "EXHAUSTIVE"},
    "channels_first": {"prefer_nhwc": "0"},
    "bias_fused": {"fuse_conv_bias": "1"},
    "channels_first_exhaustive": {"prefer_nhwc": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"},
    "bias_fused_exhaustive": {"cudnn_conv_algo_search": "EXHAUSTIVE", "fuse_conv_bias": "1"},
    "least_workspace": {"cudnn_conv_use_max_workspace": "0"},
    "one_stream": {"use_ep_level_unified_stream": "1"},
}


def measure(setup: Setup, record: Record, precision: str, sizes: Sequence[int], seconds: float) -> None:
    """Measure each entry of ``CHANGES``; a CPU ignores them. After ``seconds``, no further session is loaded."""
    end = time.perf_counter() + seconds
    images = setup.images(max(sizes))
    provider, base = setup.provider(precision, max(sizes))
    sessions = dict[str, OnnxSession]()
    for name, change in CHANGES.items():
        if time.perf_counter() < end:
            load = partial(
                _load,
                sessions,
                name,
                setup,
                precision,
                (provider, base | (change if setup.on_gpu else {})),
                [images[:n] for n in sizes],
            )
            record.attempt(partial(_timed, record, name, load), "changes", name)
    for size in sizes:
        work = {name: partial(session.run, images[:size]) for name, session in sessions.items()}
        for name, taken in in_turns(work, ROUNDS, block_s=BLOCK_S).items():
            record.put(rate(size, taken), f"batch_{size}", name)
    answers = {name: session.run(images) for name, session in sessions.items()}
    if "as_the_service" in answers:
        for name, answer in answers.items():
            record.put(float(np.abs(answer - answers["as_the_service"]).max()), "changes", name, "probability_off_by")


def _load(
    sessions: dict[str, OnnxSession],
    name: str,
    setup: Setup,
    precision: str,
    provider: Provider,
    batches: Sequence[NDArray[np.uint8]],
) -> None:
    """Make a session, run each batch in it, then add the session to ``sessions``."""
    session = OnnxSession(Path(setup.file(precision)), [provider], session_options(setup.settings.threads))
    for images in batches:
        session.run(images)
    sessions[name] = session


def _timed(record: Record, name: str, run: Callable[[], object]) -> None:
    start = time.perf_counter()
    run()
    record.put(time.perf_counter() - start, "changes", name, "load_and_first_s")
