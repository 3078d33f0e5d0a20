"""Which photos the names on a command line mean, and which files their rows go to."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from service.classify_photos.answers import Row
from service.classify_photos.forms import AsCsv
from service.classify_photos.output import already_in, opened
from service.classify_photos.photos import find
from service.errors import InvalidParameter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with files in folders."""
    for name in ("b/2.PNG", "b/10.jpg", "a/1.webp", "a/deep/1.tif", "a/notes.txt", "[1].jpg", "1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (["b", "a"], ["b/10.jpg", "b/2.PNG", "a/1.webp", "a/deep/1.tif"]),
        (["a/notes.txt"], ["a/notes.txt"]),  # what is named is taken, whatever it is
        (["?.jpg", "[1].jpg", "1.jpg"], ["1.jpg", "[1].jpg"]),  # once each, and a file's name is no pattern
        (["**/1.*"], ["1.jpg", "a/1.webp", "a/deep/1.tif"]),
        (["[ab]"], ["a/1.webp", "a/deep/1.tif", "b/10.jpg", "b/2.PNG"]),
    ],
)
@pytest.mark.usefixtures("folder")
def test_names_mean_files_in_order(named: list[str], found: list[str]) -> None:
    assert find(named, ["JPEG", "PNG", "WEBP", "TIFF"]) == found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing.jpg", "nothing.jpg: there is no such file, and no file matches"),
        ("*.gif", "no file matches"),
        ("empty", "empty: no photo is in this folder"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_name_that_gives_no_photo_is_refused(name: str, reason: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        find(["1.jpg", name], ["JPEG"])
    assert reason in str(refused.value)


@pytest.mark.usefixtures("folder")
def test_only_the_formats_that_are_read_are_taken_from_a_folder() -> None:
    assert find(["."], ["PNG"]) == ["./b/2.PNG"]


ROW = '"a\nb.jpg",xception,1,cup,0.5,\n'
HEADER = "path,model,version,label_1,probability_1,error\n"


@pytest.mark.parametrize("end", range(len(HEADER) + 2 * len(ROW) + 1))
def test_a_file_that_ends_anywhere_is_mended(tmp_path: Path, end: int) -> None:
    form, file = AsCsv(1), tmp_path / "rows.csv"
    assert form.header == HEADER
    file.write_text((HEADER + ROW + ROW.replace("a", "c").replace(",\n", ',"bro\nken"\n').replace("c\n", "c"))[:end])
    text = file.read_text()
    done = already_in(file, form)
    mended = file.read_text()
    assert text.startswith(mended)
    assert mended == "" or mended.startswith(HEADER)
    assert len(done) == len(list(csv.reader(mended.splitlines(keepends=True)))) - bool(mended)
    assert all(error in ("", "bro\nken") for error in done.values())
    assert len(text) - len(mended) < max(len(HEADER), len(ROW) + 8)


@pytest.mark.parametrize(
    "text", ["my notes", "path,label\n", HEADER + "a.jpg,1\n" + ROW, HEADER + 'a.jpg,"x"y\n' + ROW + ROW]
)
def test_another_file_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with pytest.raises(InvalidParameter, match=r"rows\.csv has"):
        already_in(file, AsCsv(1))
    assert file.read_text() == text


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="can't write"), opened(tmp_path / "a" / "b", "", resume=True):
        pass
    (tmp_path / "full").write_text("text")
    with pytest.raises(InvalidParameter, match="is not empty"), opened(tmp_path / "full", "", resume=False):
        pass


def test_a_path_that_is_no_utf8_comes_back_as_it_is(tmp_path: Path) -> None:
    form, file, path = AsCsv(1), tmp_path / "rows.csv", b"\xff.jpg".decode("utf-8", "surrogateescape")
    with opened(file, form.header, resume=True) as out:
        out.write(form.text(Row(path, "damaged")))
    assert b"\xff.jpg,,,,,damaged\n" in file.read_bytes()
    assert already_in(file, form) == {path: "damaged"}
