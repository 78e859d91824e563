"""Folders of pages with ink marked, as the document binarisation contests (DIBCO) have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ppool.metadata import LabelClass
from ppool.training.datasets.files import FilePairs, beside, find_folder, pictures

__all__ = ["INK_CLASSES", "dibco"]

INK_CLASSES = (LabelClass(0, "paper", "#ffffff"), LabelClass(1, "ink", "#202020"))
# Ink is black in the contests' files, of one bit or eight.
_IDS = {0: 1, 1: 0, 255: 0}
_YEARS: Mapping[str, frozenset[int]] = {
    "train": frozenset({2009, 2010, 2011}),
    "val": frozenset({2012}),
    "trainval": frozenset(range(2009, 2013)),
    "test": frozenset({2013, 2014}),
}
_CURE = (
    "copy the contests' pages there as DIBCO2009_H01_source.png and DIBCO2009_H01_target.png, the "
    "year in each name"
)


def dibco(root: Path, split: str) -> FilePairs:
    """Pages of the contests of 2009 to 2014, split by year, so that no page is seen twice.

    Args:
        root: the folder that holds ``dibco`` or ``DIBCO``, or is it, with ``*_source`` and
            ``*_target`` files in it.
        split: ``train`` (2009 to 2011), ``val`` (2012), ``trainval`` or ``test`` (2013 and 2014).

    Raises:
        FileNotFoundError: if the split has no pages, or a page has no target.
        ValueError: if the split is unknown.
    """
    if split not in _YEARS:
        raise ValueError(f"dibco split: expected {', '.join(_YEARS)}, got {split!r}")
    folder = find_folder(root, ("dibco", "DIBCO"), "*_source.*")
    sources = [path for path in pictures(folder, _CURE) if path.stem.endswith("_source")]
    chosen = [path for path in sources if _year(path) in _YEARS[split]]
    if not chosen:
        years = ", ".join(map(str, sorted(_YEARS[split])))
        raise FileNotFoundError(f"{folder}: expected pages of {years}, found none; {_CURE}")
    stems = (path.stem.removesuffix("source") for path in chosen)
    targets = [beside(folder, f"{stem}target", _CURE) for stem in stems]
    return FilePairs(list(zip(chosen, targets, strict=True)), INK_CLASSES, _IDS)


def _year(path: Path) -> int:
    found = re.search(r"20\d\d", path.stem)
    return int(found[0]) if found else 0
