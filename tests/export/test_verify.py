from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import parser
from PIL import Image

from export.photos import Photo
from export.verify import (
    TOLERANCE_TRAINED,
    TOLERANCE_UNTRAINED,
    GoldenSample,
    VerificationError,
    check_golden,
    check_parity,
    golden_samples,
    named_right,
    open_session,
    reference_logits,
    spread,
)
from models.weights import LoadedModel


class Recorded:
    """A real session whose outputs are passed through ``change``. It records its batch sizes."""

    def __init__(self, session: Any, change: Any = lambda outputs, batch: outputs) -> None:
        self.session, self.change = session, change
        self.batches: list[int] = []

    def run(self, names: list[str], feeds: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        self.batches.append(len(feeds["images"]))
        changed: list[NDArray[np.float32]] = self.change(self.session.run(names, feeds), self.batches[-1])
        return changed


@pytest.fixture(scope="module")
def session(xception: Path) -> Any:
    return open_session(xception / "fp32.onnx")


@pytest.fixture(scope="module")
def reference(trained_xception: LoadedModel, squashed: NDArray[np.uint8]) -> NDArray[np.float32]:
    return reference_logits(trained_xception, squashed)


@pytest.fixture(scope="module")
def golden(trained_xception: LoadedModel, photos: list[Photo], reference: NDArray[np.float32]) -> list[GoldenSample]:
    return golden_samples(trained_xception, photos, reference)


def test_an_operator_that_the_runtime_lacks_is_named(tmp_path: Path) -> None:
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["": 22]>
        deformed (bfloat16[1, 1, 4, 4] x, bfloat16[1, 1, 2, 2] w, bfloat16[1, 8, 3, 3] o) => (bfloat16[1, 1, 3, 3] y)
        { y = DeformConv(x, w, o) }
    """)
    onnx.save(model, tmp_path / "fp16.onnx")
    with pytest.raises(VerificationError, match=r"can't run fp16\.onnx: .*DeformConv.* Export another precision"):
        open_session(tmp_path / "fp16.onnx")


def test_spread_is_between_images_not_classes() -> None:
    logits = np.array([[0.0, 100.0], [2.0, 106.0]], dtype=np.float32)
    assert spread(logits) == pytest.approx(2.0)  # the mean of 1 and 3
    assert spread(logits + 7) == pytest.approx(2.0)


def test_parity(session: Any, squashed: NDArray[np.uint8], reference: NDArray[np.float32]) -> None:
    recorded = Recorded(session)
    agreement = check_parity(recorded, squashed, reference, TOLERANCE_TRAINED)
    assert recorded.batches == [1, 2, 5, 1]
    assert (agreement.images, agreement.top1) == (9, 1.0)
    assert 0 < agreement.logits < 1e-4
    assert 0 < agreement.max_abs_probability < 1e-4


def add(amount: float, *, at_batch: int) -> Any:
    def change(outputs: list[NDArray[np.float32]], batch: int) -> list[NDArray[np.float32]]:
        probabilities, logits = outputs
        logits[-1, 3] += amount * (batch == at_batch)
        return [probabilities, logits]

    return change


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_one_logit_off_at_any_batch_size_fails(
    session: Any, squashed: NDArray[np.uint8], reference: NDArray[np.float32], batch: int
) -> None:
    changed = Recorded(session, add(2e-3 * spread(reference), at_batch=batch))
    with pytest.raises(VerificationError, match=f"in a batch of {batch}; 1e-03 is allowed"):
        check_parity(changed, squashed, reference, TOLERANCE_TRAINED)


def test_untrained_weights_are_allowed_more(
    session: Any, squashed: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    agreement = check_parity(
        Recorded(session, add(2e-3 * spread(reference), at_batch=5)), squashed, reference, TOLERANCE_UNTRAINED
    )
    assert agreement.logits == pytest.approx(2e-3, rel=0.01)
    with pytest.raises(VerificationError, match="1e-02 is allowed"):
        check_parity(
            Recorded(session, add(2e-2 * spread(reference), at_batch=5)), squashed, reference, TOLERANCE_UNTRAINED
        )


def test_nan_fails(session: Any, squashed: NDArray[np.uint8], reference: NDArray[np.float32]) -> None:
    with pytest.raises(VerificationError):
        check_parity(Recorded(session, add(float("nan"), at_batch=2)), squashed, reference, TOLERANCE_TRAINED)


def test_agreement_counts_changed_answers(
    session: Any, squashed: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    def swap_classes(outputs: list[NDArray[np.float32]], batch: int) -> list[NDArray[np.float32]]:
        probabilities, logits = outputs
        return [probabilities[:, ::-1] if batch == 5 else probabilities, logits]

    agreement = check_parity(Recorded(session, swap_classes), squashed, reference, TOLERANCE_TRAINED)
    assert agreement.top1 == pytest.approx(4 / 9)
    assert agreement.max_abs_probability > 0.3


def test_too_few_images_for_the_batches(
    session: Any, squashed: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    with pytest.raises(ValueError, match="7 images"):
        check_parity(session, squashed[:7], reference[:7], TOLERANCE_TRAINED)


def test_golden_samples_are_small_photos_of_different_things(
    golden: list[GoldenSample], trained_xception: LoadedModel
) -> None:
    assert len(golden) == 3
    assert len({sample.label for sample in golden}) == 3
    for sample in golden:
        image = Image.open(io.BytesIO(sample.jpeg))
        assert image.format == "JPEG"
        assert sorted(image.size) == [300, 400]
        assert len(sample.jpeg) < 40_000
        indices, probabilities = zip(*sample.top_k, strict=True)
        assert len(set(indices)) == 5
        assert trained_xception.labels[indices[0]] == sample.label
        assert list(probabilities) == sorted(probabilities, reverse=True)
        assert probabilities[0] > 0.7


def named(loaded: LoadedModel, samples: list[GoldenSample]) -> list[str]:
    return [loaded.labels[sample.top_k[0][0]] for sample in samples]


def sure_of(loaded: LoadedModel, photos: list[Photo], margins: dict[str, float]) -> NDArray[np.float32]:
    """Logits that name each photo of ``margins`` right, surer with a larger margin, and every other photo a glass."""
    logits = np.zeros((len(photos), len(loaded.labels)), dtype=np.float32)
    logits[:, loaded.labels.index("glass")] = 0.5
    for row, photo in zip(logits, photos, strict=True):
        row[loaded.labels.index(photo.label)] = margins.get(photo.name, 0.0)
    return logits


def test_golden_samples_are_the_surest(trained_xception: LoadedModel, photos: list[Photo]) -> None:
    logits = sure_of(trained_xception, photos, {"0004": 2, "0026": 3, "0412": 9, "0403": 1})
    samples = golden_samples(trained_xception, photos, logits)
    assert named(trained_xception, samples) == ["fork", "plate", "cup"]  # photo 0004 is a plate too, but less sure


def test_a_photo_that_the_network_misnames_is_no_golden_sample(
    trained_xception: LoadedModel, photos: list[Photo]
) -> None:
    logits = sure_of(trained_xception, photos, {"0004": 2, "0207": 9})
    samples = golden_samples(trained_xception, photos, logits)
    assert named(trained_xception, samples) == ["spoon", "plate"]
    assert sum(named_right(trained_xception, photos, logits) or []) == 2


def test_a_network_that_misnames_every_photo_fails(
    trained_xception: LoadedModel, photos: list[Photo], reference: NDArray[np.float32]
) -> None:
    shuffled = dataclasses.replace(trained_xception, labels=("spoon", "cup", "fork", "glass", "knife", "plate"))
    with pytest.raises(VerificationError, match="names none of 9 photos right: the labels may be in another order"):
        named_right(shuffled, photos, reference)


def test_labels_of_photos_mean_nothing_to_a_network_that_was_not_taught_them(
    trained_xception: LoadedModel, photos: list[Photo], reference: NDArray[np.float32]
) -> None:
    strangers = [
        dataclasses.replace(trained_xception, trained=False),
        dataclasses.replace(trained_xception, labels=("cup", "plate", "dog", "cat", "horse", "ship")),
    ]
    for stranger in strangers:
        assert named_right(stranger, photos, reference) is None
        assert [sample.label for sample in golden_samples(stranger, photos, reference)] == [None] * 3


def test_golden(session: Any, trained_xception: LoadedModel, golden: list[GoldenSample]) -> None:
    check_golden(session, trained_xception, golden)


def test_a_changed_answer_fails(session: Any, trained_xception: LoadedModel, golden: list[GoldenSample]) -> None:
    changed = Recorded(session, lambda outputs, batch: [np.roll(outputs[0], 1, axis=1)])
    with pytest.raises(VerificationError, match=r"sample 0 is '\w+' to ONNX Runtime and '\w+' to torch"):
        check_golden(changed, trained_xception, golden)


def test_a_wrong_answer_fails(session: Any, trained_xception: LoadedModel, golden: list[GoldenSample]) -> None:
    mislabelled = [golden[0], dataclasses.replace(golden[1], label="teapot")]
    with pytest.raises(VerificationError, match="sample 1 shows a teapot, but the network says"):
        check_golden(session, trained_xception, mislabelled)
