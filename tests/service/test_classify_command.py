"""``python -m service classify``: real processes, here and against a real server."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service import __main__
from service.auth import new_key
from tests.server import Server, serving
from tests.service.version_copies import repository

KEY, _, KEY_LINES = new_key("any").partition("\n\n")
SLOW_KEY, _, SLOW_KEY_LINES = new_key("slow").partition("\n\n")


@pytest.fixture(scope="module")
def server(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    keys = folder / "keys.toml"
    keys.write_text(f'{KEY_LINES}\n{SLOW_KEY_LINES}\nrate = "2/second"\n')
    models = repository(folder / "models", model_repository, 1)
    with serving(models, device="cpu", precision="int8", api_keys=keys) as running:
        yield running


@pytest.fixture
def photos(tmp_path: Path, kitchenware_photos: list[tuple[Path, str | None]]) -> Path:
    """A folder of nine photos in folders named after their labels, ``label/0.jpg`` to ``label/8.jpg``."""
    folder = tmp_path / "photos"
    labelled = [(photo, label) for photo, label in kitchenware_photos if label is not None]
    for number, (photo, label) in enumerate(labelled):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number}.jpg").symlink_to(photo)
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "service", "classify", *map(str, arguments)]


def run(*arguments: object, key: str = KEY, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(  # noqa: S603
        command(*arguments),
        env=os.environ | {"INFERCEPTION_KEY": key, "COLUMNS": "240"},
        **({"stdin": subprocess.DEVNULL, "text": True} | options),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in str(done.stderr)
    return done


@contextmanager
def started(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run the command in the background. A watchdog ends it if the test goes wrong."""
    environment = os.environ | {"INFERCEPTION_KEY": KEY}
    with subprocess.Popen(command(*arguments), env=environment, text=True, **options) as process:  # noqa: S603
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def here(model_repository: Path) -> list[object]:
    return ["--model=xception", f"--model-repository={model_repository}", "--device=cpu", "--precision=int8"]


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def paths(photos: Path) -> list[str]:
    return sorted(map(str, photos.glob("*/*.jpg")))


def assert_right(row: dict[str, Any]) -> None:
    assert (row["model"], row["version"], row["trained"]) == ("xception", 1, True)
    assert row["predictions"][0]["label"] == Path(row["path"]).parent.name


def test_a_folder_is_classified_in_order_and_a_server_gives_the_same_rows_as_this_process(
    server: Server, model_repository: Path, photos: Path
) -> None:
    (photos / "notes.txt").write_text("no photo")
    broken, nowhere = photos / "cup" / "broken.JPG", photos / "cup" / "nowhere.png"
    broken.write_bytes(b"\xff\xd8\xff")
    nowhere.symlink_to(nowhere)
    done = run(photos, "--json", "--top-k=2", *here(model_repository))
    assert done.returncode == 1
    assert "loaded xception" in done.stderr
    assert "inception_v4" not in done.stderr  # only what is asked is loaded
    rows = objects(done.stdout)
    assert [row["path"] for row in rows] == sorted([*paths(photos), str(broken), str(nowhere)])
    errors = {row["path"]: row["error"] for row in rows if "error" in row}
    assert errors.keys() == {str(broken), str(nowhere)}
    assert errors[str(nowhere)] == "can't read the file: Too many levels of symbolic links"
    for row in rows:
        if row["path"] not in errors:
            assert_right(row)
            assert len(row["predictions"]) == 2
    asked = run(photos, "--json", "--top-k=2", "--url", server.url)
    assert (asked.returncode, asked.stdout) == (1, done.stdout)


def test_a_table_shows_paths_labels_bars_and_errors(server: Server, photos: Path) -> None:
    first, second = paths(photos)[:2]
    (photos / "b\x1b[2Jroken.jpg").write_bytes(b"GIF89a")
    done = run(first, second, photos / "b\x1b[2Jroken.jpg", "--top-k=2", "--url", server.url, key=KEY)
    assert done.returncode == 1
    title, *lines = done.stdout.splitlines()
    assert title == "xception version 1"
    assert [line.split()[:2] for line in (lines[0], lines[2])] == [[p, Path(p).parent.name] for p in (first, second)]
    assert ["█" in line and "%" in line for line in lines] == [True, True, True, True, False]
    assert "b\\x1b[2Jroken.jpg" in lines[-1]
    assert "damaged" in lines[-1]
    assert "\x1b" not in done.stdout


def test_standard_input_is_a_photo(server: Server, photos: Path) -> None:
    name = paths(photos)[0]
    done = run("-", "--json", "--url", server.url, text=None, stdin=None, input=Path(name).read_bytes())
    (row,) = objects(done.stdout.decode())  # type: ignore[attr-defined]
    assert row.pop("path") == "-"
    assert row["predictions"][0]["label"] == Path(name).parent.name


def test_a_killed_run_is_continued_and_its_last_row_mended(server: Server, photos: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    (photos / "broken.jpg").write_bytes(b"broken")
    assert run(photos, "--csv", "--url", server.url, "--output", whole).returncode == 1
    first, *rows = csv.DictReader(whole.read_text().splitlines())
    assert (first["path"], first["label_1"], first["error"][:12]) == (str(photos / "broken.jpg"), "", "not an image")
    assert [row["path"] for row in rows] == paths(photos)
    assert {row["label_1"] == Path(row["path"]).parent.name for row in rows} == {True}
    blocked = Path(paths(photos)[5])
    photo = blocked.readlink()
    blocked.unlink()
    os.mkfifo(blocked)  # nobody writes into it, so the run stops before this photo
    with started(photos, "--csv", "--url", server.url, "--output", cut) as process:
        while not cut.exists() or cut.read_bytes().count(b"\n") < 7:
            assert process.poll() is None
            os.sched_yield()
        process.kill()
    assert cut.read_text() == "".join(whole.read_text().splitlines(keepends=True)[:7])
    os.truncate(cut, cut.stat().st_size - 10)
    blocked.unlink()
    blocked.symlink_to(photo)
    assert run(photos, "--csv", "--url", server.url, "--output", cut).returncode == 1
    assert cut.read_text() == whole.read_text()
    assert run(photos, "--csv", "--url", "http://127.0.0.1:1", "--output", cut).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["{photos}", "nothing.jpg"], 2, "nothing.jpg: there is no such file, and no file matches"),
        (["{photos}", "--url={url}", "--model=nobody"], 2, "no model 'nobody'; there is xception"),
        (["{photos}", "--url={url}", "--top-k=7"], 2, "top_k=7, but xception has 6 classes"),
        (["{photos}", "--url={url}", "--key=wrong"], 2, "key"),
        (["{photos}", "--url=http://127.0.0.1:1"], 1, "Connection refused"),
        (["{photos}", "--url={url}", "--json", "--output={photos}/full"], 2, "full is not empty"),
        (["{photos}", "--url={url}", "--json", "--output=/dev/full"], 1, "No space left on device"),
        (["{photos}", "--url={url}", "--csv", "--output={photos}/full"], 2, "full has other columns"),
        (["{photos}", "--model=nobody", "--model-repository={models}"], 2, "no model 'nobody'; there is inception_v4"),
        (["{photos}", "--model-repository={photos}/none"], 1, "can't read the model repository"),
        (["{photos}", "--model-repository={photos}/empty"], 1, "no models in "),
        (["{photos}", "--model-repository={models}"], 2, "say which model: --model and one of inception_v4, xception"),
    ],
)
def test_what_is_wrong_is_said(
    server: Server, photos: Path, model_repository: Path, arguments: list[str], code: int, reason: str
) -> None:
    (photos / "full").write_text("text")
    (photos / "empty").mkdir()
    places = {"photos": photos, "url": server.url, "models": model_repository}
    done = run(*(argument.format(**places) for argument in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr
    assert (photos / "full").read_text() == "text"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "PHOTO"),
        (["--top-k=0"], "'0' is not a positive whole number"),
        (["--url=127.0.0.1"], "does not begin with http://"),
        (["--url=http://a", "--device=cpu", "--max-batch-size=2"], "leave out --device, --max-batch-size"),
        (["--url=http://a", "--key=a\nb"], "an API key is one line of ASCII"),
        (["--json", "--csv"], "not allowed with"),
    ],
)
def test_bad_options_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", "classify", *arguments, *(["a.jpg"] if arguments else [])])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_is_named(model_repository: Path, photos: Path, tmp_path: Path) -> None:
    models = repository(tmp_path / "models", model_repository, 1)
    (models / "xception/1/labels.txt").unlink()
    done = run(photos, *here(models))
    assert (done.returncode, done.stdout) == (1, "")
    assert "can't classify: " in done.stderr
    assert "labels.txt: No such file" in done.stderr.splitlines()[-1]


def test_a_key_that_is_used_too_often_waits_as_long_as_the_server_says(server: Server, photos: Path) -> None:
    done = run(*paths(photos)[:5], "--json", "--url", server.url, key=SLOW_KEY)
    assert done.returncode == 0
    for row in objects(done.stdout):
        assert_right(row)


def test_an_interrupt_ends_with_whole_rows(model_repository: Path, photos: Path) -> None:
    for number in range(9, 100):
        (photos / f"{number}.jpg").symlink_to(paths(photos)[0])
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(photos, "--csv", *here(model_repository), **options) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("path,model")
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate()
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in said
    lines = list(csv.reader([first, *rest.splitlines()]))
    assert len(lines) < 100
    assert {len(line) for line in lines} == {14}


def test_a_reader_that_leaves_is_no_error(server: Server, photos: Path) -> None:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(photos, "--json", "--url", server.url, **options) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        process.wait()
    assert process.returncode in (-signal.SIGPIPE, 0)  # 0 if all rows were written before
    assert said == ""
