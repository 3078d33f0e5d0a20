from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

from service.errors import InvalidManifest
from service.inference.manifest import File, Variant, checked_file, checked_variant, read_labels, read_manifest


@pytest.fixture
def folder(model_repository: Path, tmp_path: Path) -> Path:
    """A copy of an exported version, which tests damage."""
    copy = tmp_path / "xception" / "1"
    shutil.copytree(model_repository / "xception" / "1", copy)
    return copy


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_exported_manifest_is_valid(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert read_labels(folder, manifest.labels) == ("cup", "fork", "glass", "knife", "plate", "spoon")
    assert manifest.trained
    weights = [variant.external_data for variant in manifest.variants]
    for entry in (*manifest.variants, *weights, *manifest.golden):
        assert entry is not None
        assert checked_file(folder, entry).is_file()


def test_missing(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(InvalidManifest, match="No such file"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"golden": []}, "golden"),
        ({"surprise": 1}, "surprise"),
        ({"name": "other"}, "describes other version 1"),
        ({"version": 7}, "describes xception version 7"),
    ],
)
def test_what_breaks_the_contract_is_named(folder: Path, changes: dict[str, Any], told: str) -> None:
    edited(folder, **changes)
    with pytest.raises(InvalidManifest, match=told):
        read_manifest(folder)


@pytest.mark.parametrize("index", [6, 10**30])
def test_a_golden_answer_that_is_no_class(folder: Path, index: int) -> None:
    golden = json.loads((folder / "manifest.json").read_text())["golden"]
    golden[-1]["top_k"][-1]["index"] = index
    edited(folder, golden=golden)
    with pytest.raises(InvalidManifest, match=f"golden: .*an answer is class {index}, but there are 6 labels"):
        read_manifest(folder)


@pytest.mark.parametrize("crop_pct", [0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_crop_that_is_no_part_of_a_picture(folder: Path, crop_pct: float) -> None:
    preprocessing = json.loads((folder / "manifest.json").read_text())["preprocessing"]
    edited(folder, preprocessing=preprocessing | {"crop_pct": crop_pct})
    with pytest.raises(InvalidManifest, match="crop_pct"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "../1/labels.txt", "golden/../../1/labels.txt", "labels\0.txt"])
def test_a_name_that_leaves_the_folder(folder: Path, name: str) -> None:
    labels = json.loads((folder / "manifest.json").read_text())["labels"]
    edited(folder, labels=labels | {"file": name})
    with pytest.raises(InvalidManifest, match=r"labels\.file: .*inside the version folder"):
        read_manifest(folder)


def test_a_manifest_that_is_a_pipe(folder: Path) -> None:
    """Nothing writes to the pipe, so opening it would never return."""
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(InvalidManifest, match="is not a regular file"):
        read_manifest(folder)


def test_a_file_that_is_a_pipe_or_a_folder(folder: Path) -> None:
    manifest = read_manifest(folder)
    (folder / "labels.txt").unlink()
    os.mkfifo(folder / "labels.txt")
    with pytest.raises(InvalidManifest, match="is not a regular file"):
        checked_file(folder, manifest.labels)
    with pytest.raises(InvalidManifest, match="is not a regular file"):
        checked_file(folder, manifest.labels.model_copy(update={"file": "golden"}))


def test_a_manifest_of_any_size_is_refused_before_it_is_read(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 1 << 40)  # a hole: it takes no space
    with pytest.raises(InvalidManifest, match="has more than 2097152 bytes"):
        read_manifest(folder)


def test_a_manifest_that_is_all_wrong_has_a_short_reason(folder: Path) -> None:
    edited(folder, golden=[1] * 10_000)
    with pytest.raises(InvalidManifest, match=r"golden\.0: Input should be an object") as caught:
        read_manifest(folder)
    assert len(str(caught.value)) < 3_000


def relabelled(folder: Path, content: bytes) -> tuple[str, ...]:
    (folder / "labels.txt").write_bytes(content)
    labels = json.loads((folder / "manifest.json").read_text())["labels"]
    edited(folder, labels=labels | {"sha256": hashlib.sha256(content).hexdigest()})
    return read_labels(folder, read_manifest(folder).labels)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("cup\nfork\nglass\nknife\nplate\nLöffel\n".encode("latin-1"), "is not UTF-8"),
        ("cup\nfork\nglass\nknife\nplate\nspoon\n".encode("utf-16"), "is not UTF-8"),
        (b"cup\nfork\n\nknife\nplate\nspoon\n", "an empty line"),
        (b"cup\nfork\nknife\nplate\nspoon\n", "has 5 labels, its manifest says 6"),
        (b"cup\n" * (1 << 20), "has more than 2097152 bytes"),
    ],
)
def test_labels_that_name_no_classes(folder: Path, content: bytes, told: str) -> None:
    with pytest.raises(InvalidManifest, match=told):
        relabelled(folder, content)


def test_a_mark_of_byte_order_is_no_part_of_a_label_and_two_classes_may_have_one_name(folder: Path) -> None:
    labels = ("crane", "fork", "glass", "knife", "crane", "Löffel")
    assert relabelled(folder, "\r\n".join(labels).encode("utf-8-sig")) == labels


def test_data_that_a_graph_has_and_the_manifest_does_not_name(folder: Path) -> None:
    for variant in read_manifest(folder).variants:
        assert checked_variant(folder, variant) == folder / variant.file
        with pytest.raises(InvalidManifest, match=rf"has data in .*/{variant.file}\.data, which its manifest does not"):
            checked_variant(folder, variant.model_copy(update={"external_data": None}))


def tensor(location: str = "") -> TensorProto:
    """A tensor of one number, in a file if there is a location."""
    made = helper.make_tensor("one", TensorProto.FLOAT, [1], bytes(4), raw=True)
    if location:
        set_external_data(made, location, offset=0, length=4)
    return made


def written(folder: Path, graph: onnx.GraphProto, data: str | None) -> Variant:
    """Write a graph, and describe it with this file of data."""
    model = helper.make_model(graph)
    helper.set_model_props(model, {"location": "Zürich"})  # an exporter may keep such a note
    content = model.SerializeToString()
    (folder / "mine.onnx").write_bytes(content)
    entry = None
    if data is not None:
        (folder / data).parent.mkdir(exist_ok=True)
        (folder / data).write_bytes(bytes(4))
        entry = File(file=data, sha256=hashlib.sha256(bytes(4)).hexdigest())
    fields = {"file": "mine.onnx", "sha256": hashlib.sha256(content).hexdigest(), "external_data": entry}
    return read_manifest(folder).variants[0].model_copy(update=fields)


def in_initializer(held: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "g", [], [], [held])


def in_constant(held: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Constant", [], ["c"], value=held)], "g", [], [])


def in_branch(held: TensorProto) -> onnx.GraphProto:
    node = helper.make_node("If", ["b"], ["c"], then_branch=in_constant(held), else_branch=in_constant(tensor()))
    return helper.make_graph([node], "g", [], [])


@pytest.mark.parametrize("place", [in_initializer, in_constant, in_branch])
@pytest.mark.parametrize("name", ["d", "weights/d", "d" * 127, "d" * 128, "é" * 127, f"{'d' * 200}/{'d' * 200}"])
def test_data_anywhere_in_a_graph_is_that_of_the_manifest(
    folder: Path, place: Callable[[TensorProto], onnx.GraphProto], name: str
) -> None:
    assert checked_variant(folder, written(folder, place(tensor()), None)) == folder / "mine.onnx"
    assert checked_variant(folder, written(folder, place(tensor(name)), name)) == folder / "mine.onnx"
    for other in (None, "other", name[:-1] + "x"):
        with pytest.raises(InvalidManifest, match=f"has data in .*/{name}, which its manifest does not name"):
            checked_variant(folder, written(folder, place(tensor(name)), other))


def test_links_are_followed(folder: Path) -> None:
    """Kubernetes mounts files as links. What a link leads to has the sha256 or has not."""
    manifest = read_manifest(folder)
    (folder / "labels.txt").rename(folder.parent / "elsewhere")
    (folder / "labels.txt").symlink_to("../elsewhere")
    assert len(read_labels(folder, manifest.labels)) == 6
    (folder.parent / "elsewhere").write_text("cup\n")
    with pytest.raises(InvalidManifest, match="sha256"):
        read_labels(folder, manifest.labels)


def test_a_changed_file_is_not_loaded(folder: Path) -> None:
    manifest = read_manifest(folder)
    (folder / "labels.txt").write_text("cup\nfork\nglass\nknife\nspoon\nplate\n")
    with pytest.raises(InvalidManifest, match="sha256"):
        read_labels(folder, manifest.labels)
