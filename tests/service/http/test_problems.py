from __future__ import annotations

import pytest

from service.errors import without_folders


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("can't read /srv/models/a/1/labels.txt: gone", "can't read labels.txt: gone"),
        ("('/srv/models/a')", "('a')"),
        ("failed:/srv/a/model.onnx", "failed:model.onnx"),
        ("send image/* or multipart/form-data", "send image/* or multipart/form-data"),
        ("see https://a.example/b/c", "see https://a.example/b/c"),
        ("hub:timm/xception@b/model.safetensors", "hub:timm/xception@b/model.safetensors"),
    ],
)
def test_clients_are_told_of_files_and_not_of_folders(reason: str, told: str) -> None:
    assert without_folders(reason) == told
