"""A real Triton for comparison. It needs no installation: the wheel of nvidia-pytriton holds the program."""

from __future__ import annotations

import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.repository import Model
from bench.server import Server, environment, running
from service.inference.manifest import read_labels
from service.settings import Settings

_CONFIGURATION = """
backend: "python"
max_batch_size: {most}
input [{{ name: "images" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [{height}, {width}, 3] }}]
output [{{ name: "probabilities" data_type: TYPE_FP32 dims: [{classes}] }}]
dynamic_batching {{}}
"""
# Triton's Python ignores PYTHONPATH.
_MODEL = """
import sys
sys.path[:0] = {paths!r}
from bench.triton_model import TritonPythonModel
"""


@contextmanager
def triton(program: Path, model: Model, settings: Settings, most: int, **others: object) -> Iterator[Server]:
    """Run the Triton in the folder ``program`` on a free port, with ``model`` and ``most`` images in a batch.

    The folder is one like ``/opt/tritonserver``. Entries of ``others`` replace settings. Raises StartupError, and
    OSError if there is no program.
    """
    with tempfile.TemporaryDirectory() as folder:
        repository, backends = Path(folder) / "models", Path(folder) / "backends"
        _write_model(repository / model.name, model, most)
        _link_backend(program.absolute(), backends / "python")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [
            *(str(program.absolute() / "bin" / "tritonserver"), "--allow-grpc=false", "--allow-metrics=false"),
            *(f"--model-repository={repository}", f"--backend-directory={backends}"),
            *("--http-address=127.0.0.1", f"--http-port={port}"),
        ]
        told = others | {"model_repository": model.folder.parent.parent.absolute()}
        with running(Server, command, environment(settings, **told)) as server:
            yield server


def _write_model(folder: Path, model: Model, most: int) -> None:
    """Write an entry of Triton's model repository that leads to ``model``."""
    version, size = folder / model.folder.name, model.manifest.input
    version.mkdir(parents=True)
    paths = [str(Path(__file__).parents[1]), sysconfig.get_path("purelib")]
    (version / "model.py").write_text(_MODEL.format(paths=paths))
    classes = len(read_labels(model.folder, model.manifest.labels))
    text = _CONFIGURATION.format(most=most, height=size.height, width=size.width, classes=classes)
    (folder / "config.pbtxt").write_text(text)


def _link_backend(program: Path, folder: Path) -> None:
    """Make a folder with the Python backend, whose stub must be of this Python's version."""
    folder.mkdir(parents=True)
    for file in (program / "backends" / "python").iterdir():
        (folder / file.name).symlink_to(file)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = program / "python_backend_stubs" / python / "triton_python_backend_stub"
    if stub.exists():
        (folder / stub.name).symlink_to(stub)
