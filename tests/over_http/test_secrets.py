"""What a client is never shown: absolute paths, tracebacks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.server import serving

PATH = re.compile(r"(?<![\w./:])/(?:[^\s/:'\"]+/)+[^\s/\"]+")
KNOWN = {"/models/{name}", "/health/live", "/health/ready"}  # labels of metrics


def test_answers_show_no_absolute_path_and_no_traceback(model_repository: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    for version in (1, 2, 3):
        shutil.copytree(model_repository / "xception" / "1", repository / "xception" / str(version))
    (repository / "xception" / "2" / "labels.txt").write_bytes(b"\xff")
    manifest = repository / "xception" / "1" / "manifest.json"
    for version in (1, 2):
        folder = repository / "xception" / str(version)
        (folder / "manifest.json").write_text(manifest.read_text().replace('"version": 1', f'"version": {version}'))
    with serving(repository, cache=tmp_path / "cache", device="cpu") as server, server.client() as client:
        answers = [
            client.get("/models"),
            client.get("/models/xception"),
            client.get("/models/none"),
            client.get("/health/ready"),
            client.post("/classify?version=2", content=b"x"),
            client.post("/classify?version=3", content=b"x"),
            client.post("/classify?version=9", content=b"x"),
            client.post("/classify", content=b"x"),
            client.post("/classify", content=b"x", headers={"Content-Type": "multipart/form-data"}),
            client.post("/classify?top_k=x", content=b"x"),
            client.get("/metrics"),
        ]
    assert "labels.txt" in answers[0].text  # the reason is told
    assert "manifest.json" in answers[0].text
    for answer in answers:
        assert set(PATH.findall(answer.text)) <= KNOWN, answer.text
        assert str(tmp_path) not in answer.text
        assert "Traceback" not in answer.text
        assert "server" not in answer.headers
