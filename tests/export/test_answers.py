from __future__ import annotations

from pathlib import Path

import pytest

from export.answers import Answer, AnswerFile, Row

GOOD = Row("cup/a.jpg", {"fp32": Answer([0, 2], 0.75, 0.01), "int8": Answer([2, 0], 0.5, 0.005)})
BROKEN = Row("cup/bröken \udcff.jpg", error="it is no picture")
EVALUATION = {"model": "xception/1", "precisions": ["fp32", "int8"]}


def test_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    with AnswerFile(path, EVALUATION) as answers:
        answers.append([GOOD])
        with AnswerFile(path, EVALUATION) as others:  # what another process would read now
            assert others.rows == {GOOD.picture: GOOD}
    with AnswerFile(path, EVALUATION) as answers:
        answers.append([BROKEN])
        assert answers.rows == {GOOD.picture: GOOD, BROKEN.picture: BROKEN}
    with AnswerFile(path, EVALUATION) as answers:
        assert answers.rows == {GOOD.picture: GOOD, BROKEN.picture: BROKEN}


def test_a_file_that_was_cut_anywhere_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, EVALUATION) as answers:
        answers.append([GOOD, BROKEN])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with AnswerFile(path, EVALUATION) as answers:
            answers.append(row for row in (GOOD, BROKEN) if row.picture not in answers.rows)
        assert path.read_bytes() == whole


def test_another_evaluation_is_refused_and_the_file_kept(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, EVALUATION) as answers:
        answers.append([GOOD])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="answers of another evaluation: model changed; pass another --out"):
        AnswerFile(path, EVALUATION | {"model": "xception/2"})
    assert path.read_bytes() == before
