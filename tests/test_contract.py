"""Only files cross from export to service. The service reads the files that export writes, and answers alike."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.photos import labelled_photos
from export.photos import preprocess as reference
from models import NETWORKS, find_spec
from models.spec import Preprocessing as Published
from service.inference.devices import cpu
from service.inference.image import Preprocessing, decode
from service.inference.manifest import checked_file, read_labels, read_manifest

MODELS = ["xception", "inception_v4"]


@pytest.mark.parametrize("name", MODELS)
def test_the_service_reads_what_export_writes(model_repository: Path, name: str) -> None:
    folder = model_repository / name / "1"
    manifest = read_manifest(folder)
    assert (manifest.name, manifest.version) == (name, 1)
    session = cpu.session(checked_file(folder, manifest.variants[0]), threads=2)
    assert session.classes == len(read_labels(folder, manifest.labels))
    assert (session.height, session.width) == (manifest.input.height, manifest.input.width)
    assert {entry.name for entry in folder.rglob("*") if entry.is_file()} == {
        "manifest.json",
        manifest.labels.file,
        *(variant.file for variant in manifest.variants),
        *(variant.external_data.file for variant in manifest.variants if variant.external_data),
        *(Path(sample.file).name for sample in manifest.golden),
    }


@pytest.mark.parametrize(
    "published", [weights.preprocessing for name in NETWORKS for weights in find_spec(name).weights.values()]
)
def test_both_sides_prepare_a_photo_alike(published: Published) -> None:
    """The service's single resample equals export's two-step reference on every photo, within one level."""
    ours = Preprocessing(published.crop_pct, published.crop_mode, published.interpolation)
    for photo in labelled_photos():
        found = np.empty((published.input_size, published.input_size, 3), np.uint8)
        decode(photo.data, found, ours, 50_000_000)
        with Image.open(io.BytesIO(photo.data)) as image:
            expected = reference(image, published)
        difference = np.abs(found.astype(int) - expected)
        # Pillow may resize the axes in another order, and clips to 8 bits between them: a few pixels differ by more.
        assert np.quantile(difference, 0.999) <= 1
        assert difference.mean() < 0.15


def test_the_service_imports_nothing_of_the_exporters() -> None:
    """The import linter reads the source. This test looks at the modules that a server process has loaded."""
    loaded = "import sys, service.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)  # noqa: S603
    assert not {"torch", "onnx", "onnxscript", "models", "export", "h5py"} & set(done.stdout.split())


@pytest.mark.parametrize("importing", ["service.inference.session", "export.verify"])
def test_onnxruntime_keeps_no_record_of_its_use(importing: str, tmp_path: Path) -> None:
    """Before ONNX Runtime reports its use, it writes a device id and a database into the home folder."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", f"import {importing}"], env=environment, check=True)  # noqa: S603
    assert list(tmp_path.iterdir()) == []


def test_labels_are_those_of_the_manifest(model_repository: Path) -> None:
    folder = model_repository / "xception" / "1"
    manifest = read_manifest(folder)
    assert hashlib.sha256((folder / "labels.txt").read_bytes()).hexdigest() == manifest.labels.sha256
