"""Command line: ``python -m export [MODEL]`` exports MODEL, or the default models, to the model repository."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from export.arguments import parse
from export.class_folders import read_class_folders
from export.inputs import read_photos
from export.labels import read_labels
from export.repository import staged_version, version_folder

if TYPE_CHECKING:
    from export.photos import Photo
    from models.weights import LoadedModel

# Without MODEL, the command exports these default models. Each also gets int8 for CPUs and fp16 for GPUs.
DEFAULTS = (
    ["xception", "--weights", "kitchenware", "--precision", "int8", "fp16", "--if-agrees"],
    ["inception_v4", "--weights", "imagenet", "--precision", "int8", "fp16", "--if-agrees", "--fallback-untrained"],
)

# The reason why --if-agrees leaves out int8 and fp16 for random weights without a long verification.
_RANDOM = "random weights magnify every rounding"


def main(argv: Sequence[str] | None = None) -> int:
    """Export one model, or the default models that are missing, or evaluate one, and return the exit code.

    The exit code is 0, or 1 if an export failed. Each failed export prints one line on stderr that names the cause.
    An evaluation's exit codes are those of ``export.evaluate.main``.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["evaluate"]:
        from export.evaluate import main as evaluate

        return evaluate(argv[1:])
    args = parse(argv)
    if args.list:
        from export.catalogue import print_catalogue

        print_catalogue()
        return 0
    if args.model:
        return _export(args)
    return max(_export(parse([*options, "--if-missing", "--out", str(args.out)])) for options in DEFAULTS)


def _export(args: argparse.Namespace) -> int:
    name = args.name or args.model
    folder = version_folder(args.out, name, args.version)
    if args.if_missing and (folder / "manifest.json").is_file():
        print(f"{folder} is there already")
        return 0
    start = time.perf_counter()
    try:
        labels = read_labels(args.labels) if args.labels else None
        own = read_class_folders(args.photos) if args.photos else None
        calibration = read_photos(args.calibration_dir) if args.calibration_dir else []
    except (ValueError, OSError) as error:
        return _fail(error)

    # The imports are here because torch takes seconds to import, and the answers above do not need torch.
    with _stage("import torch"):
        from export.photos import Photo, all_photos, labelled_photos, with_labels
        from export.pipeline import export_version
        from export.verify import VerificationError
        from models.weights import WeightsUnavailable

    try:
        photos = [Photo(*photo) for photo in own.photos] if own else labelled_photos()
        loaded = _load(args, photos, labels, own.classes if own else ())
        if own:
            photos = with_labels(photos, own.classes, loaded.labels)
        precisions = ["fp32"] if args.if_agrees and not loaded.trained else args.precision
        with staged_version(args.out, name, args.version) as staging:
            exported = export_version(
                staging,
                loaded,
                photos,
                name=name,
                version=args.version,
                precisions=precisions,
                calibration=[*([photo.data for photo in photos] if own else all_photos()), *calibration],
                skip=args.if_agrees,
                stage=_stage,
            )
    except (WeightsUnavailable, VerificationError, ValueError, OSError) as error:
        return _fail(error)
    for precision in [precision for precision in args.precision if precision not in exported.agreements]:
        print(f"{precision} is left out: {'its answers differ too much' if loaded.trained else _RANDOM}")
    for precision, agreement in exported.agreements.items():
        print(
            f"{precision}: {agreement.top1:.1%} of {agreement.images} answers as {agreement.reference}'s, no logit off "
            f"by more than {agreement.logits:.0e} of the logits' spread, probabilities by "
            f"{agreement.mean_abs_probability:.4f} in the mean"
        )
    if exported.right is not None:
        print(f"named {exported.right} of {len(photos)} photos right")
    print(f"{folder} written in {time.perf_counter() - start:.1f} s")
    return 0


def _load(
    args: argparse.Namespace, photos: Sequence[Photo], labels: Sequence[str] | None, likely_labels: Sequence[str]
) -> LoadedModel:
    """Load the weights, or random ones where ``--fallback-untrained`` allows it, and say what was taken."""
    from export.pipeline import load
    from models.weights import WeightsUnavailable

    others = {
        "likely_labels": likely_labels,
        "options": dict(args.option),
        "preprocessing": args.preprocessing,
    }
    try:
        with _stage(f"load {args.model} with {args.weights} weights"):
            loaded = load(args.model, args.weights, photos, labels, **others)
    except WeightsUnavailable as error:
        if not args.fallback_untrained:
            raise
        _warn_untrained(args.model, args.weights, error)
        with _stage(f"make {args.model} with random weights"):
            loaded = load(args.model, "untrained", photos, labels, **others)
    print(f"weights: {loaded.source}" + (f", sha256 {loaded.sha256}" if loaded.sha256 else ""))
    how = loaded.preprocessing
    print(
        f"preprocessing: {how.input_size} pixels, crop_mode {how.crop_mode}, crop_pct {how.crop_pct}, "
        f"{how.interpolation}, mean {how.mean}, std {how.std}, {how.channel_order}, {loaded.preprocessing_origin}"
    )
    return loaded


def _fail(error: Exception) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 1


@contextmanager
def _stage(title: str) -> Iterator[None]:
    start = time.perf_counter()
    print(f"{title} ...", end=" ", flush=True)
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.perf_counter() - start:.1f} s", flush=True)


def _warn_untrained(model: str, weights: str, error: Exception) -> None:
    lines = [
        f"{model}: NO {weights.upper()} WEIGHTS, EXPORTING RANDOM ONES INSTEAD",
        "Its answers will mean nothing; only its speed is real.",
        "",
        *textwrap.wrap(str(error), 90),
    ]
    width = max(map(len, lines))
    rows = (f"# {line:<{width}} #" for line in lines)
    print("", "#" * (width + 4), *rows, "#" * (width + 4), "", sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
