"""Command line: ``python -m export evaluate MODEL --data DIR`` measures how often an exported model is right."""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from export import accuracy_plots, accuracy_report, onnx_file
from export.answers import Answer, AnswerFile, Row
from export.exported import ExportedVersion, read_version
from export.inputs import open_photo
from export.labelled_folder import LabelledPicture, labelled_pictures
from export.photos import preprocess
from export.verify import VerificationError, open_session
from models.spec import Preprocessing

Pixels = NDArray[np.uint8]

BATCH = 16  # pictures. Three batches are in memory, 13 MB of pixels.
_AHEAD = 2  # batches that are decoded while another is answered
TOP = 5

_EPILOG = """\
ImageNet's validation set is evaluated from class folders that are named by
WordNet ids (n01440764), or from the folder ILSVRC2012_img_val with a
--ground-truth file. Such files are Kaggle's LOC_val_solution.csv, and TF-slim's
imagenet_2012_validation_synset_labels.txt with one WordNet id a line. A number
in such a file is a place in labels.txt, counted from 0. The ILSVRC development
kit numbers the classes from 1 and in another order, so its
ILSVRC2012_validation_ground_truth.txt is refused.

Pictures are decoded and resized as timm's evaluation does it, which ignores the
EXIF orientation. The service turns such pictures upright.

A stopped evaluation continues when the same command runs again. A picture that
can't be read is left out and listed. Exit code 1 says that no picture could be
read, or that something was refused.
"""


def main(argv: Sequence[str]) -> int:
    """Evaluate a model, print and write the report, and return the exit code: 0, 1 for an error, 130 when stopped.

    Wrong options end the process with exit code 2.
    """
    args = _parse(argv)
    try:
        version = read_version(args.repository, args.model)
        precisions = _precisions(args.precision, version)
        pictures = labelled_pictures(args.data, version.labels, args.ground_truth)
        out = args.out or Path("reports/evaluate") / version.name
        rows = _answered(version, precisions, args.data, pictures, out / "answers.jsonl")
        report = accuracy_report.build(version, args.data, precisions, pictures, rows)
        accuracy_report.write(report, out)
        accuracy_plots.write(report, out)
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    except (VerificationError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(accuracy_report.text(report))
    print("bf16 is not measured: only OpenVINO computes it, and the answers are those of ONNX Runtime's CPU provider")
    print(f"report in {out}")
    return 0


def _answered(
    version: ExportedVersion, precisions: Sequence[str], folder: Path, pictures: Sequence[LabelledPicture], path: Path
) -> list[Row]:
    """Return the row of each picture, and answer the pictures that the file at ``path`` lacks."""
    with AnswerFile(path, _identity(version, precisions, folder, pictures)) as answers:
        waiting = [picture.name for picture in pictures if picture.name not in answers.rows]
        sessions = {name: open_session(onnx_file.paths(version.folder, name).graph) for name in precisions if waiting}
        with tqdm(total=len(pictures), initial=len(pictures) - len(waiting), unit=" pictures", disable=None) as bar:
            for batch in _decoded(folder, waiting, version.preprocessing):
                answers.append(answer_batch(sessions, batch))
                bar.update(len(batch))
        return [answers.rows[picture.name] for picture in pictures]


def _identity(
    version: ExportedVersion, precisions: Sequence[str], folder: Path, pictures: Sequence[LabelledPicture]
) -> dict[str, Any]:
    """Return what an answer depends on. A picture counts as the same if its name, class and size in bytes are."""
    lines = [f"{picture.name}\t{picture.label}\t{(folder / picture.name).stat().st_size}\n" for picture in pictures]
    return {
        "model": version.name,
        "manifest": version.sha256,
        "precisions": list(precisions),
        "pictures": hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest(),
    }


def _decoded(folder: Path, names: Sequence[str], how: Preprocessing) -> Iterator[dict[str, Pixels | str]]:
    """Yield batches of pictures: the pixels ``[size, size, 3]`` of each, or the reason why it can't be read."""
    pending: deque[dict[str, Future[Pixels | str]]] = deque()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(names) + _AHEAD * BATCH, BATCH):
            pending.append({name: pool.submit(_read, folder / name, how) for name in names[start : start + BATCH]})
            if len(pending) > _AHEAD:
                yield {name: pixels.result() for name, pixels in pending.popleft().items()}


def _read(path: Path, how: Preprocessing) -> Pixels | str:
    try:
        with open_photo(path) as image:
            return preprocess(image, how)
    except Exception as error:  # each of Pillow's parsers raises what it likes on a damaged file
        return str(error) or type(error).__name__


def answer_batch(sessions: dict[str, onnxruntime.InferenceSession], batch: dict[str, Pixels | str]) -> list[Row]:
    """Return the rows of a batch of pictures, of which each is pixels ``[size, size, 3]`` or a reason.

    Every session, by precision, answers all of the batch at once. Raises ValueError for an answer that is no number.
    """
    broken = [Row(name, error=pixels) for name, pixels in batch.items() if isinstance(pixels, str)]
    good = {name: pixels for name, pixels in batch.items() if not isinstance(pixels, str)}
    if not good:
        return broken
    images = np.stack(list(good.values()))
    answers = {precision: _run(session, images) for precision, session in sessions.items()}
    for precision, found in answers.items():
        if wrong := [name for name, answer in zip(good, found, strict=True) if not math.isfinite(answer.probability)]:
            raise ValueError(
                f"{precision} has no number for an answer to {wrong[0]}; choose other variants with --precision, and "
                "another --out"
            )
    return broken + [Row(name, {key: answers[key][i] for key in answers}) for i, name in enumerate(good)]


def _run(session: onnxruntime.InferenceSession, images: Pixels) -> list[Answer]:
    start = time.perf_counter()
    (probabilities,) = session.run(["probabilities"], {"images": images})
    seconds = (time.perf_counter() - start) / len(images)
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    return [Answer(best.tolist(), float(row[best[0]]), seconds) for best, row in zip(top, probabilities, strict=True)]


def _precisions(wanted: Sequence[str] | None, version: ExportedVersion) -> tuple[str, ...]:
    if missing := set(wanted or ()) - set(version.precisions):
        raise ValueError(f"{version.name} was exported in {', '.join(version.precisions)}, not in {', '.join(missing)}")
    return tuple(precision for precision in version.precisions if wanted is None or precision in wanted)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export evaluate",
        description="Measure how often an exported model is right, in each of its precisions.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="NAME/VERSION in the repository, or NAME for the highest version")
    add(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="JPEG and PNG pictures in a folder for each class, whose name is the class's label, its WordNet id or its "
        "place in labels.txt, counted from 0",
    )
    add(
        "--ground-truth",
        type=Path,
        metavar="FILE",
        help="classes of pictures that are not sorted into folders: lines of a picture's name and its class, or of the "
        "class alone in the order of the pictures' names",
    )
    add("--precision", nargs="+", choices=["fp32", "fp16", "int8"], help="variants to measure (default: all)")
    add("--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="default: %(default)s")
    add("--out", type=Path, metavar="DIR", help="answers and report (default: reports/evaluate/NAME/VERSION)")
    return parser.parse_args(argv)
