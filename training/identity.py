"""What a run was made from, so that its result is never taken for that of other data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ppool.training.dataset import IGNORE, SegmentationDataset
from ppool.training.datasets.files import FilePairs

__all__ = ["check_held_out", "check_training", "digest_of", "file_digest", "identity"]

_CHUNK = 1 << 20
_known: WeakKeyDictionary[SegmentationDataset, dict[str, Any]] = WeakKeyDictionary()


def identity(dataset: SegmentationDataset) -> dict[str, Any]:
    """How many images a data set has, and a digest of its classes and its whole content.

    Files are read as they lie, about a second a gigabyte, and count with their names. A data set
    that knows itself better says so in ``identity``, any text; another one is read image by image.

    Raises:
        FileNotFoundError: if a file is missing.
    """
    if dataset not in _known:
        _known[dataset] = {"images": len(dataset), "digest": digest_of(_content(dataset))}
    return _known[dataset]


def _content(dataset: SegmentationDataset) -> Iterator[bytes]:
    for entry in dataset.classes:
        yield f"{entry.id} {entry.name}\n".encode()
    own = getattr(dataset, "identity", None)
    if own is not None:
        yield str(own).encode()
    elif isinstance(dataset, FilePairs):
        dataset.check_files()
        for path in dataset.files:
            yield f"{path.name} {path.stat().st_size}\n".encode()
            yield from _chunks(path)
    else:
        for index in range(len(dataset)):
            sample = dataset[index]
            for values in (sample.image, sample.mask):
                yield f"{values.shape}\n".encode()
                yield np.ascontiguousarray(values).tobytes()


def digest_of(parts: Iterable[bytes]) -> str:
    """16 hexadecimal digits of BLAKE2b."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Of a file's content.

    Raises:
        OSError: if it cannot be read.
    """
    return digest_of(_chunks(path))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def check_training(dataset: SegmentationDataset) -> None:
    """Refuse images to train on of which no pixel has a label.

    Raises:
        ValueError: if there are no images, or no labelled pixel.
    """
    if not any((dataset[index].mask != IGNORE).any() for index in range(len(dataset))):
        raise ValueError(_unlabelled("training images", dataset))


def check_held_out(dataset: SegmentationDataset) -> None:
    """Read every held-out image once: none of them shall end a run that has taken hours.

    Raises:
        FileNotFoundError, ValueError: as reading a sample raises, or if a label is no class, or
            if no pixel has a label.
    """
    labelled = False
    for index in range(len(dataset)):
        counts = np.bincount(dataset[index].mask.ravel(), minlength=256)
        classes = len(dataset.classes)
        wrong = np.flatnonzero(counts[classes:IGNORE]) + classes
        if len(wrong):
            raise ValueError(
                f"held-out image {index}: expected labels 0 to {classes - 1} and {IGNORE}, got "
                f"{wrong[:8].tolist()}"
            )
        labelled |= bool(counts[:classes].any())
    if not labelled:
        raise ValueError(_unlabelled("held-out images", dataset))


def _unlabelled(what: str, dataset: SegmentationDataset) -> str:
    return (
        f"{what}: expected some pixels with a label, got {len(dataset)} images whose every pixel "
        f"is {IGNORE}; is it the right folder?"
    )
