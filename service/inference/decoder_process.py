"""The program of one decoder: reads pictures from a socket, decodes each, writes its pixels back.

A picture can take a decoder any time and any memory, and a thread cannot be stopped. So the decoder is a process: the
kernel ends the process when a picture's deadline passes, and refuses the process more memory than it may have.
"""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from service.errors import ImageTooLarge, InvalidImage, UnsupportedType
from service.inference.formats import FORMATS
from service.inference.image import Preprocessing, decode

# A picture's own faults. Whoever asks gets such an error as it is.
FAULTS = {fault.__name__: fault for fault in (InvalidImage, ImageTooLarge, UnsupportedType)}


class How(NamedTuple):
    """How pictures are decoded for one model."""

    preprocessing: Preprocessing
    max_pixels: int
    fast: bool
    formats: Sequence[str] = FORMATS


def main(socket: int, memory_mb: int, niceness: int) -> None:
    """Serve the socket with this descriptor until its other end is closed.

    A picture's deadline on ``time.monotonic``, which all processes share, the size of the square that is wanted and How
    come in, then the picture's bytes. An empty message and uint8 ``[size, size, 3]`` go out, or the name of an error, a
    colon and what it says.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the server ends this one
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
    os.nice(niceness)
    connection = Connection(socket)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes on standard error what it thinks of a picture
    while True:
        try:
            deadline, size, how = connection.recv()
            # SIGALRM ends the process. On a busy machine, the bytes of a large picture alone may take too long.
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, deadline - time.monotonic()))
            data = connection.recv_bytes()
        except EOFError:
            return
        pixels = np.empty((size, size, 3), np.uint8)
        try:
            decode(data, pixels, *how)
            fault = ""
        except tuple(FAULTS.values()) as error:
            fault = f"{type(error).__name__}:{error}"
        except MemoryError:
            fault = f"ImageTooLarge:decoding the picture takes more than {memory_mb} MB of memory"
        except Exception:
            fault = f"Exception:{traceback.format_exc()}"
        del data
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        connection.send_bytes(fault.encode("utf-8", "replace"))
        if not fault:
            connection.send_bytes(pixels.data.cast("B"))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
