from __future__ import annotations

from pathlib import Path

import pytest

from export.repository import staged_version, version_folder


def publish(repository: Path, version: int, content: str) -> None:
    with staged_version(repository, "model", version) as folder:
        (folder / "manifest.json").write_text(content)


def everything(repository: Path) -> list[str]:
    return sorted(str(path.relative_to(repository)) for path in repository.rglob("*"))


def test_a_version_appears_when_it_is_whole(tmp_path: Path) -> None:
    final = version_folder(tmp_path, "model", 2)
    with staged_version(tmp_path, "model", 2) as folder:
        (folder / "manifest.json").write_text("new")
        assert not final.exists()
        assert folder.parent == final.parent  # the same file system
        assert not folder.name.isdecimal()
    assert final == tmp_path / "model" / "2"
    assert everything(tmp_path) == ["model", "model/2", "model/2/manifest.json"]


def test_a_version_is_replaced_at_the_end_only(tmp_path: Path) -> None:
    publish(tmp_path, 1, "old")
    with staged_version(tmp_path, "model", 1) as folder:
        (folder / "manifest.json").write_text("new")
        assert (tmp_path / "model/1/manifest.json").read_text() == "old"
    assert (tmp_path / "model/1/manifest.json").read_text() == "new"
    assert everything(tmp_path) == ["model", "model/1", "model/1/manifest.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with staged_version(tmp_path, "model", 1) as folder:
            (folder / "half").write_text("written")
            raise error

    with pytest.raises(error):
        fail()
    assert everything(tmp_path) == []


def test_a_failure_leaves_the_old_version(tmp_path: Path) -> None:
    publish(tmp_path, 1, "old")
    with pytest.raises(RuntimeError), staged_version(tmp_path, "model", 1):
        raise RuntimeError
    assert everything(tmp_path) == ["model", "model/1", "model/1/manifest.json"]
    assert (tmp_path / "model/1/manifest.json").read_text() == "old"


def test_a_failed_swap_brings_the_old_version_back(tmp_path: Path) -> None:
    publish(tmp_path, 1, "old")
    with pytest.raises(FileNotFoundError), staged_version(tmp_path, "model", 1) as folder:
        folder.rmdir()  # the old version's rename works, then the new one's fails
    assert (tmp_path / "model/1/manifest.json").read_text() == "old"


def test_what_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    publish(tmp_path, 1, "old")
    for leftover in (".1.partial", ".1.replaced"):
        (tmp_path / "model" / leftover / "golden").mkdir(parents=True)
    with staged_version(tmp_path, "model", 1) as folder:
        assert list(folder.iterdir()) == []
    assert everything(tmp_path) == ["model", "model/1"]


def test_a_kill_in_the_middle_of_the_swap_is_repaired(tmp_path: Path) -> None:
    publish(tmp_path, 1, "old")
    (tmp_path / "model/1").rename(tmp_path / "model/.1.replaced")
    with staged_version(tmp_path, "model", 1) as folder:
        assert (tmp_path / "model/1/manifest.json").read_text() == "old"
        (folder / "manifest.json").write_text("new")
    assert (tmp_path / "model/1/manifest.json").read_text() == "new"


def test_two_exports_of_a_model_do_not_mix(tmp_path: Path) -> None:
    with staged_version(tmp_path, "model", 1) as folder:
        (folder / "manifest.json").write_text("first")
        with pytest.raises(ValueError, match="another export"):
            publish(tmp_path, 1, "second")
        publish(tmp_path / "elsewhere", 1, "second")
    assert (tmp_path / "model/1/manifest.json").read_text() == "first"
