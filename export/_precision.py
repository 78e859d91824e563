"""``lower_precision``: an exported file in float16 for GPUs, or with int8 convolutions for CPUs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from ppool.export._files import read_exported, refuse_to_overwrite, save_whole
from ppool.export._half import halved, refuse_converted
from ppool.export._int8 import quantised
from ppool.export._judge import PHOTO
from ppool.feeding import Feed, feed
from ppool.metadata import CONVERTED, METADATA_KEY, InputPolicy, ModelMetadata
from ppool.runtime import ALPHA_SWITCH, LOGITS_SWITCH, Session, make_session
from ppool.scoring import ConfusionMatrix
from ppool.service.codecs.images import decode_file
from ppool.service.codecs.kinds import SUFFIXES

__all__ = ["Precision", "Score", "lower_precision", "score"]

Precision = Literal["fp16", "int8"]

# Share of the pixels of a photo.
LEAST_ALIKE = 0.9


@dataclass(frozen=True)
class Score:
    """What a file reaches on labelled images.

    Attributes:
        images: How many.
        bytes: Size of the file.
        mean_iou: Over the classes that occur, 0 to 1.
        milliseconds: Median CPU time of one inference, on one thread, of single images.
    """

    images: int
    bytes: int
    mean_iou: float
    milliseconds: float


def lower_precision(
    source: Path,
    path: Path,
    precision: Precision,
    *,
    calibration: Path | None = None,
    validation: Path | None = None,
    limit: int | None = None,
) -> list[Score]:
    """Convert a file of ``ppool export``.

    ``fp16`` stores everything in half precision; pooling still computes in single precision, and
    inputs and outputs stay as they are. ``int8`` makes convolutions and additions 8 bits, by
    static quantisation with the ranges seen on the calibration images; pooling, resizing, labelling
    and a convolution of the image itself stay in single precision.

    The result says which file it was made of, and what both reach on the validation images.

    Args:
        source: The file.
        path: Where the result goes; it appears there whole or not at all.
        precision: Which.
        calibration: A folder of images such as the model will see; for ``int8``.
        validation: What :func:`score` takes.
        limit: Score so many images.

    Returns:
        The scores of ``source`` and of the result; none without validation images.

    Raises:
        ValueError: if the file is no such file, ``path`` is the same, or there is nothing to
            calibrate with or to score.
    """
    refuse_to_overwrite(source, path)
    session = make_session(source)
    model, about = read_exported(source)
    refuse_converted(model, precision)
    if precision == "fp16":
        content = halved(model).SerializeToString()
        _check_range(session, make_session(content))
    else:
        if calibration is None:
            raise ValueError("--calibration: expected a folder of images, got none")
        content = quantised(source, _calibration_feeds(source, calibration, about.input))
    make_session(content)
    scores = []
    if validation is not None:
        scores = [score(file, validation, limit=limit) for file in (source, content)]
    said: dict[str, Any] = {
        "precision": precision,
        "of": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    if scores:
        before, after = (found.mean_iou for found in scores)
        said |= {"images": scores[0].images, "mean_iou": after, "mean_iou_before": before}
    save_whole(_saying(content, about, said), path)
    return scores


def _saying(content: bytes, about: ModelMetadata, said: Mapping[str, Any]) -> bytes:
    """A file that says, besides, how it was converted."""
    model = onnx.load_from_string(content)
    converted = replace(about, training={**about.training, CONVERTED: said})
    texts = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, texts | {METADATA_KEY: converted.to_json()})
    whole: bytes = model.SerializeToString()
    return whole


def _check_range(exact: Session, half: Session) -> None:
    """Compare on the playground's photo.

    Raises:
        ValueError: if numbers inside the network leave the range of float16.
    """
    policy = exact.metadata.input
    longest = max(policy.multiple, min(policy.max_side, policy.padded(256)))
    photo = _fed(PHOTO, replace(policy, max_side=longest, min_side=None))
    truth, found = (s.run(["mask"], {"image": photo.image[None]})[0] for s in (exact, half))
    same = float(np.mean(truth == found))
    if same < LEAST_ALIKE:
        raise ValueError(
            f"model: in float16 only {100 * same:.0f} % of the pixels of a photo keep their class; "
            "numbers inside the network leave its range, up to 65504"
        )


def score(model: Path | bytes, validation: Path, *, limit: int | None = None) -> Score:
    """Mean IoU and speed on ``validation/images`` and ``validation/masks``.

    Masks have the images' names with the suffix ``.png`` and class ids as pixels; 255 is ignored,
    or 65535 where there are more than 256 classes.
    Images are fed, and masks brought back to their size, as the service does it. One integer
    confusion matrix is taken over all images; classes that never occur are left out.

    Args:
        model: A file of ``ppool export``, or its content.
        validation: The folder.
        limit: Use the first so many images; ``None`` is all.

    Raises:
        ValueError: if there are no images, or an image has no mask of class ids.
    """
    session = make_session(model)
    classes = len(session.metadata.classes)
    confusion = ConfusionMatrix(np.zeros((classes, classes), np.int64))
    times = []
    for file in _files(validation / "images")[:limit]:
        truth_file = validation / "masks" / f"{file.stem}.png"
        if not truth_file.is_file():
            raise ValueError(f"{truth_file}: expected the mask of {file.name}, got no such file")
        photo = _fed(file, session.metadata.input)
        start = time.thread_time()
        feeds: dict[str, NDArray[Any]] = {"image": photo.image[None], **session.sized(*photo.whole)}
        (labels,) = session.run(["mask"], feeds)
        times.append(time.thread_time() - start)
        with Image.open(truth_file) as picture:
            modes = ("L", "P") if classes <= 256 else ("L", "P", "I;16")
            if picture.mode not in modes:
                raise ValueError(
                    f"{truth_file}: expected one channel of class ids (mode {' or '.join(modes)}), "
                    f"got mode {picture.mode!r}"
                )
            truth = np.asarray(picture)
        try:
            confusion.update(truth, photo.mask(labels[0]))
        except ValueError as error:
            raise ValueError(f"{truth_file}: {error}") from error
    size = len(model) if isinstance(model, bytes) else model.stat().st_size
    milliseconds = round(median(times) * 1e3, 2)
    return Score(len(times), size, round(confusion.mean_iou, 4), milliseconds)


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: expected a folder of images, got none in it")
    return files


def _fed(file: Path, policy: InputPolicy) -> Feed:
    photo = decode_file(file, policy)
    return feed(photo.image, policy, (photo.height, photo.width))


def _calibration_feeds(
    model: Path, folder: Path, policy: InputPolicy
) -> Iterator[dict[str, NDArray[Any]]]:
    """Each image with everything optional switched off; the folder is looked into at once."""
    given = {entry.name for entry in onnx.load(model, load_external_data=False).graph.input}
    switches = {name: np.array(False) for name in given & {ALPHA_SWITCH, LOGITS_SWITCH}}
    files = _files(folder)
    return ({"image": _fed(file, policy).image[None], **switches} for file in files)
