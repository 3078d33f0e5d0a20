"""The example of tritonclient over gRPC in docs/clients.md, run as it stands but for the address and the photo."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from bench.server import Server
from tests.clients.conftest import REPOSITORY
from tests.clients_page import example

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    return {"grpc_port": 0}


def test_tritonclient(server: Server) -> None:
    photo = REPOSITORY / "xception" / "1" / "golden" / "0.jpg"
    replacements = {"127.0.0.1:8001": server.grpc_address, "photo.jpg": str(photo)}
    code = example("tritonclient over gRPC", replacements)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert ":plate" in done.stdout.splitlines()[0]
