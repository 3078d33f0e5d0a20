"""The committed stubs are those that ``make stubs`` writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path


def test_the_stubs_are_those_of_the_proto_file(tmp_path: Path) -> None:
    (tmp_path / "service" / "grpc").mkdir(parents=True)
    shutil.copy("service/grpc/inference.proto", tmp_path / "service" / "grpc")
    recipe = re.search(r"^stubs:.*\n((?:\t.*\n)+)", Path("Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    commands = recipe[1].replace("$(bin)", str(Path(sys.executable).parent))
    subprocess.run(["/bin/sh", "-ec", commands], cwd=tmp_path, check=True)  # noqa: S603 - our own commands
    made, committed = (folder / "service" / "grpc" / "inference_pb2.py" for folder in (tmp_path, Path()))
    assert made.read_text() == committed.read_text()
