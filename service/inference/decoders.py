"""Decodes pictures in processes, so that no picture can hold, fill or crash the server.

The rules:
- A picture holds a decoder until its deadline at most. Then the kernel ends the process, and the next picture gets a
  new process.
- A decoder has a bounded amount of memory.
- A picture that is cheap by its structure never waits behind others. Unusual pictures share one decoder of a low
  priority, and only a few of them are admitted at a time.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from service.errors import DeadlineExceeded, InvalidImage, InvalidParameter, QueueFull, ServiceError, Unavailable
from service.inference.decoder_process import FAULTS, How
from service.inference.picture_cost import Encoded, is_ordinary
from service.settings import ModelSettings

log = logging.getLogger("inferception")

_NICENESS = 19  # of the decoder of unusual pictures: while all CPUs are busy, it gets a percent or two of one
_MOST_UNUSUAL = 4  # admitted at a time
_PATIENCE_S = 60.0  # with a picture that is known to be good
_STUCK_S = 5.0  # an ordinary picture takes a fraction of a second


class Decoders(Collector):
    """All decoders of the server: as many as ``decoders`` for ordinary pictures, one for unusual pictures."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self.ordinary = DecoderPool(settings.decoders, settings.decode_memory_mb // 4)
        self.unusual = DecoderPool(1, settings.decode_memory_mb, _NICENESS)
        self._unusual_admitted = 0

    def start(self) -> None:
        """Start the processes, which take a moment. Without this, each starts when it is first needed."""
        self.ordinary.start()
        self.unusual.start()

    def check(self, pictures: Sequence[Encoded]) -> None:
        """Raise InvalidParameter for more unusual pictures than are ever admitted together."""
        if len(pictures) <= _MOST_UNUSUAL:
            return
        unusual = sum(not is_ordinary(data, self._settings.max_pixels) for data in pictures)
        if unusual > _MOST_UNUSUAL:
            raise InvalidParameter(f"{unusual} pictures of an unusual structure: send at most {_MOST_UNUSUAL} together")

    @contextmanager
    def admit(self, data: Encoded) -> Iterator["DecoderPool"]:
        """Give the decoders for this picture, to the block that has it decoded. For the event loop's thread.

        Raises ImageTooLarge, and QueueFull when enough unusual pictures are there.
        """
        if is_ordinary(data, self._settings.max_pixels):
            yield self.ordinary
            return
        if self._unusual_admitted >= _MOST_UNUSUAL:
            raise QueueFull("enough pictures of an unusual structure are being decoded", retry_after=1.0)
        self._unusual_admitted += 1
        try:
            yield self.unusual
        finally:
            self._unusual_admitted -= 1

    def decode(self, how: How, data: Encoded, out: NDArray[np.uint8]) -> None:
        """Decode a picture that is known to be good into ``out``, uint8 ``[size, size, 3]``. Blocks."""
        pool = self.ordinary if is_ordinary(data, how.max_pixels) else self.unusual
        pool.threads.submit(pool.decode, data, how, time.monotonic() + _PATIENCE_S, out).result()

    @property
    def stuck(self) -> str | None:
        """Why no picture is decoded, or None."""
        seconds = self.ordinary.still_for
        return f"no picture was decoded for {seconds:.0f} s" if seconds > _STUCK_S else None

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Give Prometheus its figures as they are now."""
        busy = GaugeMetricFamily("inferception_decoders_busy", "Decoders that have a picture", labels=["pictures"])
        ended = CounterMetricFamily(
            "inferception_decoders_ended", "Decoders that a picture or the system ended", labels=["pictures"]
        )
        for pictures, pool in (("ordinary", self.ordinary), ("unusual", self.unusual)):
            busy.add_metric([pictures], pool.busy)
            ended.add_metric([pictures], pool.ended)
        yield from (busy, ended)

    def close(self) -> None:
        """End all decoders, whatever they do."""
        self.ordinary.close()
        self.unusual.close()


class DecoderPool:
    """``count`` decoders of one kind, and as many ``threads`` that wait for them."""

    def __init__(self, count: int, memory_mb: int, niceness: int = 0) -> None:
        self.threads = ThreadPoolExecutor(count, "decode")
        self._decoders = [_Decoder(memory_mb, niceness) for _ in range(count)]
        self._idle = self._decoders.copy()
        self._moved = time.monotonic()  # when a decoder was last taken or given back

    def start(self) -> None:
        """Start the processes."""
        for decoder in self._decoders:
            decoder.start()

    def decode(self, data: Encoded, how: How, deadline: float, out: NDArray[np.uint8]) -> None:
        """Decode a picture into ``out``, uint8 ``[size, size, 3]``. Blocks one of ``threads``.

        ``deadline`` is on ``time.monotonic``. Raises InvalidImage, ImageTooLarge or UnsupportedType, which are the
        picture's faults. Raises DeadlineExceeded, and Unavailable when the system ended the decoder.
        """
        if deadline <= time.monotonic():
            raise DeadlineExceeded("the picture waited for a decoder until its deadline")
        decoder = self._idle.pop()
        self._moved = time.monotonic()
        try:
            decoder.decode(data, how, deadline, out)
        finally:
            self._idle.append(decoder)
            self._moved = time.monotonic()

    @property
    def busy(self) -> int:
        """How many decoders have a picture."""
        return len(self._decoders) - len(self._idle)

    @property
    def ended(self) -> int:
        """How many processes were ended by a picture or by the system."""
        return sum(decoder.ended for decoder in self._decoders)

    @property
    def still_for(self) -> float:
        """Seconds for which all decoders have had the same pictures."""
        return 0.0 if self._idle else time.monotonic() - self._moved

    def close(self) -> None:
        """End all processes, and then the threads."""
        for decoder in self._decoders:
            decoder.close()
        self.threads.shutdown(cancel_futures=True)


class _Decoder:
    """A process, or the next process in its place, and the socket to it."""

    def __init__(self, memory_mb: int, niceness: int) -> None:
        self.ended = 0
        self._memory_mb, self._niceness = memory_mb, niceness
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ours, its = socket.socketpair()
        with its:
            arguments = map(str, (its.fileno(), self._memory_mb, self._niceness))
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "service.inference.decoder_process", *arguments],
                pass_fds=[its.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
            )
        self._connection = Connection(ours.detach())

    def decode(self, data: Encoded, how: How, deadline: float, out: NDArray[np.uint8]) -> None:
        try:
            if self._process is None and not self._closed:
                self.start()
            self._connection.send((deadline, len(out), how))
            self._connection.send_bytes(data)
            fault = self._connection.recv_bytes().decode()
            if not fault:
                self._connection.recv_bytes_into(out.reshape(-1))
                return
        except (EOFError, OSError):
            raise self._why_ended() from None
        kind, _, text = fault.partition(":")
        raise FAULTS[kind](text) if kind in FAULTS else RuntimeError(text)

    def _why_ended(self) -> ServiceError:
        process, self._process = self._process, None
        if process is None or self._closed:
            return Unavailable("no decoder runs")
        self._connection.close()
        code = process.wait()
        self.ended += 1
        if code == -signal.SIGALRM:
            return DeadlineExceeded("decoding the picture took until its deadline")
        log.warning("a decoder ended with exit code %d", code)
        if code >= 0 or code == -signal.SIGKILL:
            return Unavailable("the system ended the decoder")
        return InvalidImage(f"the picture is damaged: its decoder ended with {signal.Signals(-code).name}")

    def close(self) -> None:
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
            process.wait()
