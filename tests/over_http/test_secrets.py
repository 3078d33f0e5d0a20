"""What a client is never shown: absolute paths, tracebacks, keys."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from service.auth import new_key
from tests.server import serving

PATH = re.compile(r"(?<![\w./])/(?:[^\s/:'\"]+/)+[^\s/\"]+")
KNOWN = ("/models/{name}", "/health/", "/components/schemas/")  # routes, and names in the description


def test_answers_show_no_absolute_path_and_no_traceback(model_repository: Path, tmp_path: Path) -> None:
    repository = tmp_path / "my models: the 'best'"
    key, _, lines = new_key("app").partition("\n\n")
    (tmp_path / "keys.toml").write_text(f"{lines}\nadmin = true\n")
    for version in (1, 2, 3):
        shutil.copytree(model_repository / "xception" / "1", repository / "xception" / str(version))
    (repository / "xception" / "2" / "labels.txt").write_bytes(b"\xff")
    manifest = repository / "xception" / "1" / "manifest.json"
    for version in (1, 2):
        folder = repository / "xception" / str(version)
        (folder / "manifest.json").write_text(manifest.read_text().replace('"version": 1', f'"version": {version}'))
    settings: dict[str, object] = {"cache": tmp_path / "cache", "api_keys": tmp_path / "keys.toml", "device": "cpu"}
    with serving(repository, **settings) as server, server.client() as client:
        nobody = client.get("/models", headers={"X-API-Key": f"{key}x"})
        client.headers["X-API-Key"] = key
        answers = [
            nobody,
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
            client.post("/classify", content=b"x", headers={"X-Priority": key}),
            client.get("/nothing"),
            client.delete("/models"),
            client.get("/openapi.json"),
            client.get("/metrics"),
        ]
    assert nobody.status_code == 401
    assert "xception/2/labels.txt" in answers[1].text  # the reason is told
    assert "xception/3/manifest.json" in answers[1].text
    for answer in answers:
        assert {path for path in PATH.findall(answer.text) if not path.startswith(KNOWN)} == set(), answer.text
        assert str(tmp_path) not in answer.text
        assert "Traceback" not in answer.text
        assert "my models" not in answer.text
        assert key not in answer.text
        assert "server" not in answer.headers
    assert not any(key in line for line in server.output)
