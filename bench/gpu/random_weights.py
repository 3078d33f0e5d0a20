"""Write Inception-v4 with random weights in fp32 and fp16, to measure its speed.

``python -m bench.gpu.random_weights FOLDER``. ``python -m export`` refuses fp16 for random weights, because they
magnify rounding. The fp16 variant misses the golden answers, so no server loads it.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

from export import onnx_file, verify
from export.fuse import fuse
from export.manifest import write_manifest
from export.photos import labelled_photos, preprocess_all
from export.pipeline import load
from export.trace import trace


def write(architecture: str, repository: Path) -> Path:
    """Write version 1 of ``architecture`` into a repository. Return the version's folder."""
    folder = repository / architecture / "1"
    folder.mkdir(parents=True)
    photos = labelled_photos()
    loaded = load(architecture, "untrained", photos, None)
    pixels = preprocess_all([photo.data for photo in photos], loaded.preprocessing)
    logits = verify.reference_logits(loaded, pixels)
    network = fuse(loaded.model, loaded.preprocessing)
    agreements = {}
    for precision, made in {"fp32": network, "fp16": copy.deepcopy(network).half()}.items():
        onnx_file.write(trace(made, loaded.preprocessing.input_size), folder, precision)
        session = verify.open_session(onnx_file.paths(folder, precision).graph)
        agreements[precision] = verify.check_parity(session, pixels, logits, float("inf"))
    golden = verify.golden_samples(loaded, photos, logits)
    write_manifest(folder, loaded, name=architecture, version=1, agreements=agreements, golden=golden)
    return folder


if __name__ == "__main__":
    write("inception_v4", Path(sys.argv[1]))
