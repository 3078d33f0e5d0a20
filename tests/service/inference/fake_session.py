"""A session that records its arguments and its runs, and computes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from service.inference.devices import cpu, cuda, openvino
from service.inference.session import Provider, session_options


class FakeSession:
    """A session with Xception's shapes. Tests put it in the place of a device's ``OnnxSession``."""

    height, width, classes = 299, 299, 6

    def __init__(self, model: Path, providers: list[Provider], options: ort.SessionOptions) -> None:
        ((self.provider, self.told), *_) = providers
        self.nodes = {self.provider: 1}
        self.threads = options.intra_op_num_threads
        self.ran: list[int] = []

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.ran.append(len(images))
        return np.zeros((len(images), self.classes), np.float32)


def without_a_gpu(monkeypatch: pytest.MonkeyPatch, session: type[FakeSession] = FakeSession) -> None:
    """Make the CUDA device believe that all it needs is there, and let it make fake sessions."""
    monkeypatch.setattr(cuda.Cuda, "check", lambda self, settings: "1")
    monkeypatch.setattr(cuda.Cuda, "pin", lambda self, memory: None)
    monkeypatch.setattr(cuda, "OnnxSession", session)


def without_openvino(monkeypatch: pytest.MonkeyPatch, session: type[FakeSession] = FakeSession) -> None:
    """Make the OpenVINO device believe that OpenVINO knows this CPU, and let it make fake sessions."""

    def make(file: Path, threads: int, told: dict[str, str]) -> FakeSession:
        return session(file, [(openvino.PROVIDER, told)], session_options(threads))

    monkeypatch.setattr(openvino.OpenVino, "check", lambda self, settings: "1")
    monkeypatch.setattr(openvino, "session", make)


def on_the_cpu(monkeypatch: pytest.MonkeyPatch, session: type[FakeSession] = FakeSession) -> None:
    """Let the CPU device make fake sessions."""
    monkeypatch.setattr(cpu, "OnnxSession", session)
