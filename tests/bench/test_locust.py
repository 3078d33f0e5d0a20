"""Locust runs in a separate process, because importing Locust patches the standard library for gevent."""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from export.photos import write_labelled_photos
from tests.server import serving

REPORTS = Path("reports/locust")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_labelled_photos(folder)
    return folder


@pytest.fixture
def one_photo(tmp_path: Path) -> Path:
    (tmp_path / "photos/cup").mkdir(parents=True)
    (tmp_path / "photos/cup/1.jpg").write_bytes(b"a cup")
    return tmp_path / "photos"


def locust(url: str, photos: Path, *options: str) -> subprocess.CompletedProcess[str]:
    files = "bench/locust/locustfile.py,bench/locust/shapes.py"
    command = [sys.executable, "-m", "locust", "-f", files, "--headless", "--only-summary"]
    done = subprocess.run(  # noqa: S603 - our own command line
        [*command, "--host", url, "--photos", str(photos), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)  # shown if the test fails
    return done


def python(*lines: str) -> str:
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603


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
REFUSED = Answer(429, headers={"Retry-After": "20"})


@contextmanager
def answering(answers: Iterator[Answer]) -> Iterator[str]:
    """Serve ``answers`` one after another. Yields the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
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
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_smoke(model_repository: Path, photos: Path) -> None:
    reports = [f"--csv={REPORTS / 'smoke'}", f"--html={REPORTS / 'smoke.html'}"]
    with serving(model_repository, default_model="xception") as server:
        done = locust(server.url, photos, "--users=8", "--spawn-rate=8", "--run-time=10s", *reports)
    assert done.returncode == 0
    counts = {row["Name"]: int(row["Request Count"]) for row in rows(REPORTS / "smoke_stats.csv")}
    assert min(counts.get(name, 0) for name in ("raw", "multipart", "several files")) > 0
    assert "several files" in (REPORTS / "smoke.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("answer", "options", "broken"),
    [
        (RIGHT, [], []),
        (RIGHT, ["--max-p99-ms=0"], ["p99 is"]),
        (WRONG, [], ["of the requests failed", "answers had a wrong label"]),
        (WRONG, ["--max-failures=1", "--max-wrong-labels=1000"], []),
    ],
)
def test_a_broken_threshold_fails_the_run(
    one_photo: Path, answer: Answer, options: list[str], broken: list[str]
) -> None:
    with answering(itertools.repeat(answer)) as url:
        done = locust(url, one_photo, "--tags=raw", "--run-time=1s", *options)
    assert done.returncode == (1 if broken else 0)
    said = re.findall(r"threshold broken: (.*)", done.stdout)
    assert len(said) == len(broken)
    assert all(what in line for what, line in zip(broken, said, strict=True))


@pytest.mark.parametrize("answer", [BROKEN, GARBLED])
def test_an_answer_that_is_none_is_a_failure(one_photo: Path, answer: Answer) -> None:
    with answering(itertools.repeat(answer)) as url:
        done = locust(url, one_photo, "--tags=raw", "--run-time=1s")
    assert done.returncode == 1
    assert "threshold broken: 100.00% of the requests failed" in done.stdout


def test_a_server_that_is_not_there_fails_the_run(one_photo: Path) -> None:
    with answering(iter(())) as url:
        pass
    assert locust(url, one_photo, "--tags=raw", "--run-time=1s").returncode == 1


def test_refusals_are_no_failures_and_no_answers(one_photo: Path) -> None:
    with answering(itertools.repeat(REFUSED)) as url:
        done = locust(url, one_photo, "--tags=raw", "--run-time=1s")
    assert done.returncode == 1
    assert "threshold broken: no request was answered" in done.stdout
    (row,) = re.findall(r"refused \(429\) +(\d+) +(\d+)\(", done.stdout)
    assert row == ("1", "0")  # Retry-After ends after the run


def test_a_refused_user_comes_back_when_told_to() -> None:
    waits = json.loads(
        python(
            "from bench.locust.locustfile import Visitor",
            "user = object.__new__(Visitor)",
            "user.retry_after = 20.0",
            "print([user.wait_time(), user.wait_time()])",  # Retry-After holds for one wait only
        )
    )
    assert waits[0] == 20.0
    assert 0.1 <= waits[1] <= 1.0


def test_a_shape_sets_the_number_of_users() -> None:
    stages = python(
        "from types import SimpleNamespace as Fake",
        "from bench.locust.shapes import Steps",
        "shape = Steps()",
        "shape.runner = Fake(environment=Fake(parsed_options=Fake(run_time=8, num_users=4)))",
        "for second in (0, 1.9, 2, 4, 6, 8):",
        "    shape.get_run_time = lambda: second",
        "    print(shape.tick())",
    )
    assert stages.splitlines() == ["(1, 1)", "(1, 1)", "(2, 2)", "(3, 3)", "(4, 4)", "None"]


def test_a_shape_is_chosen_by_name(one_photo: Path) -> None:
    with answering(itertools.repeat(RIGHT)) as url:
        done = locust(url, one_photo, "--tags=raw", "--shape=Spike", "--users=2", "--run-time=1s")
    assert done.returncode == 0
    assert "Shape test starting" in done.stdout


def test_no_photos_is_said_at_once(tmp_path: Path) -> None:
    done = locust("http://127.0.0.1:9", tmp_path)
    assert done.returncode == 1
    assert "python -m export.photos" in done.stdout


def test_the_locustfile_needs_only_locust() -> None:
    """Locust's container image has no PyTorch."""
    loaded = python(
        "import sys, bench.locust.locustfile, bench.locust.shapes",
        "print(*{name.partition('.')[0] for name in sys.modules})",
    )
    assert not {"torch", "onnx", "onnxruntime", "numpy", "models", "export", "service"} & set(loaded.split())
