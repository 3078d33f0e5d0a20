"""Locust in a process of its own, since importing it patches the standard library for gevent."""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from tests.load.photos import write_photos
from tests.server import serving

REPORTS = Path("reports/locust")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


@pytest.fixture
def one_photo(tmp_path: Path) -> Path:
    (tmp_path / "photos/cup").mkdir(parents=True)
    (tmp_path / "photos/cup/1.jpg").write_bytes(b"a cup")
    return tmp_path / "photos"


def locust(url: str, photos: Path, *options: str) -> subprocess.CompletedProcess[str]:
    files = "tests/load/locustfile.py,tests/load/shapes.py"
    command = [sys.executable, "-m", "locust", "-f", files, "--headless", "--only-summary"]
    done = subprocess.run(  # noqa: S603 - our own command line
        [*command, "--host", url, "--photos", str(photos), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    return done


def rows(report: Path) -> list[dict[str, str]]:
    with report.open(newline="") as file:
        return list(csv.DictReader(file))


class Answer(NamedTuple):
    status: int
    content: object = None
    headers: Mapping[str, str] = MappingProxyType({})


RIGHT = Answer(200, {"predictions": [{"label": "cup"}]})
WRONG = Answer(200, {"predictions": [{"label": "fork"}]})
BROKEN = Answer(500)
GARBLED = Answer(200, {})
REFUSED = Answer(429, headers={"Retry-After": "2"})


@contextmanager
def answering(answers: Iterator[Answer]) -> Iterator[tuple[str, list[float]]]:
    """Serve ``answers`` one after another; yields the URL, and when each was asked for."""
    asked: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked.append(time.monotonic())
            self.rfile.read(int(self.headers["Content-Length"]))
            answer = next(answers)
            body = json.dumps(answer.content).encode()
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


def test_smoke(model_repository: Path, photos: Path) -> None:
    reports = [f"--csv={REPORTS / 'smoke'}", f"--html={REPORTS / 'smoke.html'}"]
    with serving(model_repository, default_model="xception") as server:
        done = locust(server.url, photos, "--users=4", "--spawn-rate=4", "--run-time=30s", *reports)
    assert done.returncode == 0
    counts = {row["Name"]: int(row["Request Count"]) for row in rows(REPORTS / "smoke_stats.csv")}
    assert min(counts.get(name, 0) for name in ("raw", "multipart", "several files")) > 0
    assert "several files" in (REPORTS / "smoke.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("answer", "options", "broken"),
    [
        (RIGHT, [], None),
        (RIGHT, ["--max-p99-ms=0"], "p99 is"),
        (WRONG, ["--max-failures=1"], "answers had a wrong label"),
        (WRONG, ["--max-failures=1", "--max-wrong-labels=1000"], None),
        (BROKEN, [], "100.00% of the requests failed"),
        (BROKEN, ["--max-failures=1"], None),
        (GARBLED, [], "100.00% of the requests failed"),
        (REFUSED, [], "no request was answered"),
    ],
)
def test_a_broken_threshold_fails_the_run(
    one_photo: Path, answer: Answer, options: list[str], broken: str | None
) -> None:
    with answering(itertools.repeat(answer)) as (url, asked):
        done = locust(url, one_photo, "--tags=raw", "--run-time=2s", *options)
    assert asked
    assert done.returncode == (1 if broken else 0)
    said = re.findall(r"threshold broken: (.*)", done.stdout)
    assert len(said) == (1 if broken else 0)
    assert all(str(broken) in line for line in said)


def test_a_server_that_is_not_there_fails_the_run(one_photo: Path) -> None:
    with answering(iter(())) as (url, _):
        pass
    assert locust(url, one_photo, "--tags=raw", "--run-time=1s").returncode == 1


def test_a_refused_user_comes_back_when_told_to(one_photo: Path, tmp_path: Path) -> None:
    with answering(itertools.cycle([REFUSED, RIGHT])) as (url, asked):
        done = locust(url, one_photo, "--tags=raw", "--run-time=7s", f"--csv={tmp_path / 'run'}")
    assert done.returncode == 0
    waits = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert len(waits) >= 2
    assert min(waits[::2]) >= 2.0
    assert max(waits[1::2]) < 2.0  # the wait was for that refusal alone
    counts = {row["Name"]: (row["Request Count"], row["Failure Count"]) for row in rows(tmp_path / "run_stats.csv")}
    # The run may end between the last request and its answer, which is then nobody's.
    assert counts["refused (429)"] in [(f"{len(sent[::2])}", "0") for sent in (asked, asked[:-1])]


def test_a_shape_sets_the_number_of_users(one_photo: Path, tmp_path: Path) -> None:
    with answering(itertools.repeat(RIGHT)) as (url, _):
        shape = ["--shape=Steps", "--users=4", "--run-time=8s", f"--csv={tmp_path / 'run'}"]
        done = locust(url, one_photo, "--tags=raw", *shape)
    assert done.returncode == 0
    users = [int(row["User Count"]) for row in rows(tmp_path / "run_stats_history.csv")]
    assert [count for count, _ in itertools.groupby(users) if count] == [1, 2, 3, 4]


def test_no_photos_is_said_at_once(tmp_path: Path) -> None:
    done = locust("http://127.0.0.1:9", tmp_path)
    assert done.returncode == 1
    assert "python -m tests.load.photos" in done.stdout


def test_the_locustfile_needs_only_locust() -> None:
    """Its image has no PyTorch."""
    loaded = (
        "import sys, tests.load.locustfile, tests.load.shapes; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)  # noqa: S603
    assert not {"torch", "onnx", "onnxruntime", "numpy", "models", "export", "service"} & set(done.stdout.split())
