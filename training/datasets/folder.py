"""A folder of own photos, as ``ppool train init`` described it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ppool.metadata import LabelClass
from ppool.training.dataset import IGNORE
from ppool.training.datasets.files import FilePairs

__all__ = ["DESCRIPTION", "MASKS", "describe", "folder"]

DESCRIPTION, MASKS = "dataset.json", "masks"


def describe(classes: Sequence[LabelClass], splits: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The document that :func:`folder` reads: classes and, for each split, names of images."""
    return {"classes": [asdict(entry) for entry in classes], "splits": dict(splits)}


def folder(root: Path, split: str) -> FilePairs:
    """The images of one split, ``images/*`` with ``masks/*.png`` of the same names.

    Args:
        root: the folder, with the ``dataset.json`` that ``ppool train init`` wrote.
        split: ``train`` or ``val``, or any other that was added to ``dataset.json`` by hand.

    Raises:
        FileNotFoundError: if the folder was not described yet.
        ValueError: if the split is unknown, or the description is none.
    """
    path = root / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; `ppool train init {root}` writes it")
    try:
        document = json.loads(path.read_text("utf-8"))
        classes = tuple(LabelClass(**entry) for entry in document["classes"])
        splits = {name: list(map(str, names)) for name, names in document["splits"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a description of a data set ({error}); `ppool train init {root}` writes "
            "it anew"
        ) from error
    if split not in splits:
        raise ValueError(f"folder split: expected {', '.join(splits)}, got {split!r}")
    pairs = [
        (root / "images" / name, root / MASKS / f"{Path(name).stem}.png") for name in splits[split]
    ]
    return FilePairs(pairs, classes, {entry.id: entry.id for entry in classes} | {IGNORE: IGNORE})
