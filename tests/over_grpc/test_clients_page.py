"""An example of docs/clients.md, run as it stands but for the address and the photo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.clients_page import example
from tests.server import Server


def test_our_stubs(server: Server, xception: Path) -> None:
    photo = xception / "xception" / "1" / "golden" / "0.jpg"
    replacements = {"127.0.0.1:8001": server.grpc_address, "photo.jpg": str(photo)}
    code = example("Other clients over gRPC", replacements)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    row = [float(number) for number in done.stdout.strip("[]\n").split()]
    assert (len(row), max(row)) == (6, row[4])  # the photo shows a plate, and plates are the label of index 4
