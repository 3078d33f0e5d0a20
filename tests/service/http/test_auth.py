from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.auth import new_key, read_keys
from service.errors import ModelNotFound, StartupError
from service.http.app import create_app
from service.predict import Predict, Question
from service.runtime import Runtime
from service.scheduling.batch_queue import Priority
from service.settings import Settings
from tests.over_http.exchange import label_of
from tests.server import Server, serving


def made(name: str, *more: str) -> tuple[str, str]:
    """Return a key and its lines of the file."""
    key, _, lines = new_key(name).partition("\n\n")
    return key, "\n".join([lines, *more, ""])


APP, APP_LINES = made("app", 'priority = "low"')
SELDOM, SELDOM_LINES = made("seldom", 'rate = "20/second; 2/minute"')
ADMIN, ADMIN_LINES = made("night-shift", "admin = true")
PATIENCE_S = 30.0


def unnamed(_: object) -> str:
    """Name a case without its key, which differs from process to process."""
    return "case"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(APP_LINES + SELDOM_LINES + ADMIN_LINES)
    return path


@pytest.fixture(scope="module")
def server(model_repository: Path, keys: Path) -> Iterator[Server]:
    with serving(model_repository.absolute(), api_keys=keys, default_model="xception", device="cpu") as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "path", ["/models", "/models/xception/golden/0", "/metrics", "/live", "/openapi.json", "/nothing", "/docs/x"]
)
@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), {"X-API-Key": ""}, {"X-API-Key": "é"}, {"Authorization": "Basic eDp5"}]
)
def test_nobody_comes_in_without_a_key(server: Server, path: str, headers: dict[str, str]) -> None:
    with server.client() as client:
        answer = client.get(path, headers={name.encode(): value.encode() for name, value in headers.items()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_picture_is_not_even_read_without_a_key(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        assert client.post("/classify", content=b"x").status_code == 401
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(10_000_000))
    for expect in ("Expect: 100-continue", "Expect:"):
        command = ["curl", "-sS", "--max-time", "30", "-H", expect, "-H", "X-API-Key: wrong", "--data-binary"]
        done = subprocess.run(  # noqa: S603 - curl and our own server
            [*command, f"@{large}", f"{server.url}/classify"], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["status"] == 401


def test_a_key_lets_in(server: Server, kitchenware_photos: list[tuple[Path, str | None]]) -> None:
    path, label = next((path, label) for path, label in kitchenware_photos if label is not None)
    with server.client() as client:
        other = {"Authorization": "Bearer of-a-gateway", "X-API-Key": APP}
        for headers in (bearer(APP), {"X-API-Key": APP}, {"Authorization": f"bearer {APP}"}, other):
            assert label_of(client.post("/classify", content=path.read_bytes(), headers=headers)) == label


def test_health_needs_no_key(server: Server) -> None:
    with server.client() as client:
        assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 200
        assert client.get("/health/../metrics").status_code == 401


@pytest.mark.parametrize("path", ["/", "/docs", "/page/index.js", "/page/swagger/swagger-ui.css"])
def test_the_pages_need_no_key_since_they_ask_for_it(server: Server, path: str) -> None:
    with server.client() as client:
        assert client.get(path).status_code == 200


def test_the_rest_is_the_administrators(server: Server) -> None:
    with server.client() as client:
        for path in ("/metrics", "/live", "/openapi.json"):
            refused = client.get(path, headers=bearer(APP))
            assert refused.status_code == 403
            assert "administrator" in refused.json()["detail"]
            assert client.get(path, headers=bearer(ADMIN)).status_code == 200
        assert client.get("/models", headers=bearer(APP)).status_code == 200
        unload = "/v2/repository/models/xception/unload"
        assert "administrator" in client.post(unload, headers=bearer(APP)).json()["error"]
        assert "admin_api" in client.post(unload, headers=bearer(ADMIN)).json()["error"]
        described = client.get("/openapi.json", headers=bearer(ADMIN)).json()
    assert described["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    problems = described["paths"]["/models"]["get"]["responses"]
    assert {"401", "403", "429"} <= problems.keys()
    assert "WWW-Authenticate" in problems["401"]["headers"]


def test_a_key_has_a_rate(server: Server) -> None:
    with server.client() as client:
        first, second, third = (client.get("/models", headers=bearer(SELDOM)) for _ in range(3))
        assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
        assert 1 <= int(third.headers["retry-after"]) <= 60
        assert third.json()["type"] == "urn:inferception:error:rate-exceeded"
        assert client.get("/models", headers=bearer(APP)).status_code == 200


def test_the_log_and_the_metrics_name_the_key_and_show_none(server: Server) -> None:
    with server.client() as client:
        client.get("/models", headers=bearer(ADMIN) | {"X-Request-Id": "marked"})
        client.get("/models", headers=bearer("wrong"))
        metrics = client.get("/metrics", headers=bearer(ADMIN)).text
    deadline = time.monotonic() + PATIENCE_S
    while not (lines := [line for line in server.output if "request_id=marked" in line]):
        assert time.monotonic() < deadline
    assert "key=night-shift" in lines[0]
    assert 'inferception_key_requests_total{key="night-shift",status="200"}' in metrics
    assert 'inferception_key_requests_total{key="",status="401"}' in metrics
    for key in (APP, SELDOM, ADMIN, "wrong"):
        assert not any(key in line for line in (*server.output, metrics))


@pytest.mark.parametrize(
    ("key", "asked", "got"),
    [
        (APP, {"X-Priority": "high"}, "LOW"),
        (APP, {}, "LOW"),
        (ADMIN, {"X-Priority": "high"}, "HIGH"),
        (ADMIN, {}, "NORMAL"),
        (ADMIN, {"X-Priority": "low"}, "LOW"),
    ],
    ids=unnamed,
)
def test_a_key_bounds_the_priority(
    keys: Path, key: str, asked: dict[str, str], got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    priorities: list[Priority] = []

    def question(*terms: Any) -> Question:
        priorities.append(terms[-1])
        raise ModelNotFound("only the priority counts here")

    monkeypatch.setattr(Predict, "question", question)
    client = TestClient(create_app(Runtime(Settings(api_keys=keys))))
    assert client.post("/classify", headers=bearer(key) | asked).status_code == 404
    assert [priority.name for priority in priorities] == [got]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no key"),
        ("[app\nx = 1", r"can't read .*keys\.toml: .*line 1"),
        ("[app]\n", "app.sha256: Field required"),
        ("[app]\nsha256 = 'x'\n", "app.sha256: "),
        (APP_LINES + "rate = 'often'\n", "app.rate: "),
        (APP_LINES + "rate = '20/second; 0/day'\n", "app.rate: .*nothing"),
        (APP_LINES + "rate = 20\n", "app.rate: "),
        (APP_LINES + "admn = true\n", "app.admn: "),
        (APP_LINES + APP_LINES.replace("app", "other"), "app and other have the same key"),
        (APP_LINES.replace("app", "'a status=200'"), "a status=200"),
        ("\xff", "can't read"),
    ],
    ids=unnamed,
)
def test_a_wrong_file_stops_the_start(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(StartupError, match=told):
        read_keys(path)
    with pytest.raises(StartupError, match="can't read"):
        read_keys(tmp_path)


def test_a_wrong_file_is_told_by_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--port=0", f"--api-keys={tmp_path / 'none'}"]
    done = subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "can't start: api_keys: can't read" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_makes_a_key(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-m", "service", "key", "app"], capture_output=True, text=True, check=True)
    key, _, lines = made.stdout.partition("\n\n")
    assert re.fullmatch(r"[\w-]{43}", key)
    (tmp_path / "keys.toml").write_text(lines)
    assert set(read_keys(tmp_path / "keys.toml")) == {"app"}
    assert key not in lines


@pytest.mark.parametrize("name", ["", 'a"b', "two words", "a.b", "a\nb", "é"])
def test_a_name_of_a_key_needs_no_quotes(name: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "service", "key", name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "letters, digits, _ and -" in done.stderr
    assert not done.stdout
