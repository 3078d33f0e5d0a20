from __future__ import annotations

import re
from pathlib import Path

import pytest

from export.labels import read_labels


@pytest.mark.parametrize(
    "content",
    [
        b"cup\nfork\n",
        b"cup\nfork",
        b"cup\r\nfork\r\n",
        b"cup\rfork\r",
        b"\xef\xbb\xbfcup\nfork\n",
        b"\xef\xbb\xbfcup\r\nfork\r\n",
        b"cup \n\tfork\n",
    ],
)
def test_every_way_to_save_a_text_file_gives_the_same_labels(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path / "labels.txt") == ("cup", "fork")


def test_labels_keep_their_own_signs(tmp_path: Path) -> None:
    names = ("Löffel, groß", "杯", "tench, Tinca tinca", "#1", "क्\u200dष")
    (tmp_path / "labels.txt").write_text("\n".join(names), encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == names


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("cup\nfork\n".encode("utf-16"), r"labels\.txt is not UTF-8 text \(invalid start byte at byte 0\)"),
        ("cup\nfork\n".encode("utf-16-le"), r"labels\.txt, line 1 contains the character '\\x00'"),
        ("Löffel\n".encode("latin-1"), r"labels\.txt is not UTF-8 text \(invalid start byte at byte 1\)"),
        (b"cup\n\xef\xbb\xbffork\n", r"labels\.txt, line 2 contains the character '\\ufeff'"),
        (b"0\tcup\n1\tfork\n", r"labels\.txt, line 1 contains the character '\\t'"),
        (b"cup\n\nfork\n", r"labels\.txt, line 2 is empty"),
        (b"cup\nfork\n  \n", r"labels\.txt, line 3 is empty"),
        ("cup\n\u00a0\nfork\n".encode(), r"labels\.txt, line 2 is empty"),
        (b"", r"labels\.txt must name at least 2 classes, not 0"),
        (b"cup\n", r"labels\.txt must name at least 2 classes, not 1"),
    ],
)
def test_labels_that_would_be_wrong_answers_are_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("one-column.csv", 'cup\n"fork, big"\n'),
        ("kaggle.csv", 'label\ncup\n"fork, big"\n'),
        ("pandas-series.csv", ',0\n0,cup\n1,"fork, big"\n'),
        ("pandas-frame.csv", ',class_id,name\n0,0,cup\n1,1,"fork, big"\n'),
        ("name-first.csv", 'label,index\n"fork, big",1\ncup,0\n'),
        ("without-a-header.CSV", '1,"fork, big"\r\n0,cup\r\n'),
        ("of-excel.csv", "\ufeffid;label\r\n0;cup\r\n1;fork, big\r\n"),
        ("list.json", '["cup", "fork, big"]'),
        ("by-number.json", '{"1": "fork, big", "0": "cup"}'),
        ("class_to_idx.json", '{"cup": 0, "fork, big": 1}'),
        ("config.json", '{"model_type": "timm_wrapper", "id2label": {"0": "cup", "1": "fork, big"}, "label2id": {}}'),
    ],
)
def test_tables_and_json_as_people_have_them(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_labels(tmp_path / name) == ("cup", "fork, big")


def test_names_that_are_numbers_have_a_number_each(tmp_path: Path) -> None:
    (tmp_path / "digits.json").write_text('{"1": 0, "0": 1}')
    assert read_labels(tmp_path / "digits.json") == ("1", "0")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "", "must name at least 2 classes, not 0"),
        ("a.csv", "id,name\n0,cup\n0,fork\n", "line 3 names class 0, as line 2 does"),
        ("a.csv", "id,name\n1,cup\n2,fork\n", "names 2 classes, but not class 0; number the classes from 0"),
        ("a.csv", "id,name\n0,cup\n1\n", "line 3 has 1 columns, and line 1 has 2"),
        ("a.csv", "id,name\n0,cup\n\n", "line 3 has 0 columns, and line 1 has 2"),
        ("a.csv", "id,name\n0,cup\n1, \n", "line 3 is empty"),
        ("a.csv", "name,origin\ncup,home\nfork,away\n", "line 1 has 2 columns of names; expected one"),
        ("a.csv", "0,1\n1,2\n", "line 1 has 0 columns of names; expected one"),
        ("a.csv", ",id,name\n0,1,cup\n1,0,fork\n", "line 2 has the numbers 0, 1 for one class"),
        ("a.csv", 'name\n"cup\nfork\n', "line 3: unexpected end of data"),
        ("a.csv", 'name\n"cup\nsaucer"\nfork\n', r"line 3 contains the character '\n'"),
        ("a.json", "", "line 1 is no JSON: Expecting value"),
        ("a.json", '["cup",\n"fork"', "line 2 is no JSON: Expecting ',' delimiter"),
        ("a.json", "[" * 100_000, "maximum recursion depth exceeded"),
        ("a.json", "7", "expected a list or an object of names and numbers, not '7'"),
        ("a.json", '["cup", 1]', "entry 1 is '1'; expected a name and its number"),
        ("a.json", '["cup", " "]', "entry 1 is empty"),
        ("a.json", '{"0": "cup", "0": "fork"}', "entry '0' comes twice"),
        ("a.json", '{"0": "cup", "00": "fork"}', "entry '00' names class 0, as entry '0' does"),
        ("a.json", '{"0": "cup", "2": "fork"}', "names 2 classes, but not class 1"),
        ("a.json", '{"cup": 0, "fork": true}', "entry 'fork' is 'True'; expected a name and its number"),
        ("a.json", '{"0": ["n03", "cup"]}', "expected a name and its number"),
    ],
)
def test_an_error_names_the_file_and_the_place(name: str, content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        read_labels(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
