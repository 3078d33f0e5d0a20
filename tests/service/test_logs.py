from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.server import Server, serving
from tests.service.http.raw import HEALTH, statuses

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
FORGED = "2026-01-01 00:00:00,000 ERROR forged"
BREAKS = ["\n", "\r", "\x0b", "\x0c", "\x1b[2J", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e", "\x00"]


def logging_program(program: str, style: str = "text") -> subprocess.Popen[str]:
    """Run ``program`` with ``log`` configured. Its three streams are pipes."""
    start = "import logging, sys; from service import logs; log = logging.getLogger('test')\n"
    command = [sys.executable, "-c", f"{start}logs.configure({style!r})\n{program}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)  # noqa: S603 - our own program


def test_json_lines_carry_the_request(model_repository: Path) -> None:
    with serving(model_repository, log_format="json", max_batch_size=1) as server, server.client() as client:
        client.post("/classify?model=xception", content=b"x", headers={"X-Request-Id": "abc"})
    lines = [json.loads(line) for line in server.output if line.startswith("{")]
    (request,) = [line for line in lines if line.get("request_id") == "abc"]
    assert request["status"] == 400
    assert request["model"] == "xception"
    assert request["read_ms"] <= request["total_ms"]
    assert any("loaded" in line["message"] for line in lines)


def test_a_request_writes_one_line_whatever_is_in_it(model_repository: Path) -> None:
    with serving(model_repository) as server, server.client() as client:
        before = len(server.output)
        for mark in BREAKS:
            client.get(f"/models/x{quote(mark + FORGED)} status=200", headers={"X-Request-Id": FORGED})
            client.post("/classify", content=b"x", params={"model": f"x{mark}{FORGED}", "top_k": f"{mark}{FORGED}"})
    lines = [line.removesuffix("\n") for line in server.output[before:]]
    requests = [line for line in lines if " request " in line]
    assert len(requests) == 2 * len(BREAKS)
    assert all(STAMP.match(line) and line.isprintable() and line.count("status=") == 1 for line in requests)
    assert not any(line.startswith(FORGED) for line in lines)


@pytest.mark.parametrize("mark", BREAKS)
def test_no_record_forges_a_line(mark: str) -> None:
    text = repr(f"a{mark}{FORGED}")
    program = f"log.info({text}); log.info('%s', {text}, extra={{'fields': {{'name': {text}}}}})\n"
    program += f"try: raise ValueError({text})\nexcept ValueError: log.exception({text})"
    _, written = logging_program(program).communicate(timeout=60)
    lines = written.split("\n")[:-1]
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if STAMP.match(line)]) == 3
    assert all(STAMP.match(line) or line.startswith("  ") for line in lines)
    assert not any(line.startswith(FORGED) for line in lines)
    assert lines[-1].lstrip().startswith(("ValueError: a", FORGED))


@pytest.mark.parametrize("style", ["text", "json"])
def test_lines_that_nobody_reads_are_dropped_and_counted(style: str) -> None:
    program = "for i in range(30_000): log.info('line %06d', i)\n"
    program += "print('alive', flush=True); sys.stdin.readline(); log.info('at last')"
    with logging_program(program, style) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdin
        assert process.stdout.readline() == "alive\n"
        written = [process.stderr.readline() for _ in range(9000)]
        process.stdin.write("\n")
        process.stdin.flush()
        written += process.stderr.readlines()
    assert process.returncode == 0
    kept = [int(line[1]) for line in re.finditer(r"line (\d{6})", "".join(written))]
    dropped = [int(count) for count in re.findall(r"(\d+) log lines were dropped", "".join(written))]
    assert kept == sorted(set(kept))
    assert len(kept) >= 10_000
    assert len(kept) + sum(dropped) == 30_000
    assert "at last" in written[-1]


def test_a_log_that_nobody_reads_stops_nothing(model_repository: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--port=0", f"--model-repository={model_repository}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603 - our own
        assert process.stdout
        url = next(found[1] for line in process.stdout if (found := re.search(r"ready at (http://\S+)", line)))
        server = Server(process, url)
        with server.connect() as connection:
            connection.sendall(b"GET /models HTTP/1.1\r\nHost: test\r\n\r\n" * 2000)  # many times what a pipe holds
            assert statuses(connection, 2000) == [b"200"] * 2000
            connection.sendall(HEALTH)
            assert statuses(connection, 1) == [b"200"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_record_that_is_logged_while_another_one_is_logged_holds_nothing_up() -> None:
    """A signal handler may log. So may an object that is collected."""
    program = "import os, signal\n"
    program += "signal.signal(signal.SIGALRM, lambda *_: log.info('signal'))\n"
    program += "signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)\n"
    program += "for i in range(20_000): log.info('line')\n"
    program += "signal.setitimer(signal.ITIMER_REAL, 0)"
    process = logging_program(program)
    _, written = process.communicate(timeout=60)
    assert process.returncode == 0
    assert written.endswith("\n")
    assert "signal" in written


def test_all_lines_are_written_at_exit() -> None:
    process = logging_program("for i in range(5000): log.info('line %d', i)")
    _, written = process.communicate(timeout=60)
    assert written.count("line ") == 5000
