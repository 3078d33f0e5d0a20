from __future__ import annotations

import json
from pathlib import Path

from tests.server import serving


def test_json_lines_carry_the_request(model_repository: Path) -> None:
    with serving(model_repository, log_format="json", max_batch_size=1) as server, server.client() as client:
        client.post("/classify?model=xception", content=b"x", headers={"X-Request-Id": "abc"})
    lines = [json.loads(line) for line in server.output if line.startswith("{")]
    (request,) = [line for line in lines if line.get("request_id") == "abc"]
    assert request["status"] == 400
    assert request["model"] == "xception"
    assert request["read_ms"] <= request["total_ms"]
    assert any("loaded" in line["message"] for line in lines)
