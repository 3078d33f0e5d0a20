"""The catalogue's weights, from the place of publication to a loaded model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from safetensors.torch import save_file

from models import CATALOG
from models.spec import HubFile, PublishedWeights, ReleaseFile
from models.weights import LoadedModel, imagenet_labels, load_model
from tests.models.download.file_server import COMMIT, FileServer


def test_imagenet_weights_load_from_the_hub(hub: FileServer, live_inception_v4: LoadedModel, tmp_path: Path) -> None:
    save_file(live_inception_v4.model.state_dict(), tmp_path / "v4.safetensors")
    content = (tmp_path / "v4.safetensors").read_bytes()
    hub.files["/timm/inception_v4.tf_in1k/resolve/main/model.safetensors"] = content

    loaded = load_model("inception_v4", "imagenet")

    assert loaded.source == f"hub:timm/inception_v4.tf_in1k/model.safetensors@{COMMIT}"
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()
    assert loaded.labels == imagenet_labels()
    assert loaded.preprocessing.crop_pct == 0.875


def test_imagenet_weights_load_from_a_release(
    server: FileServer, live_xception: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(live_xception.model.state_dict(), tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    server.files["/x.safetensors"] = content
    published = CATALOG["xception"].weights["imagenet"]
    source = ReleaseFile(f"{server.url}/x.safetensors", hashlib.sha256(content).hexdigest()[:9])
    monkeypatch.setitem(CATALOG["xception"].weights, "imagenet", PublishedWeights(source, published.preprocessing))

    loaded = load_model("xception", "imagenet")

    assert loaded.options["padding"] == "torch"
    assert loaded.labels == imagenet_labels()
    assert loaded.source == f"release:{source.url}"


def test_published_sources_are_the_ones_that_the_weights_were_described_from() -> None:
    assert CATALOG["xception"].weights["imagenet"].source == ReleaseFile(
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
        "43020ad28",
    )
    assert CATALOG["inception_v4"].weights["imagenet"].source == HubFile(
        "timm/inception_v4.tf_in1k", "model.safetensors", "main"
    )
