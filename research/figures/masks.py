"""Masks of several networks side by side, pixel for pixel, of photographs that a rule chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ppool.feeding import Normalisation
from ppool.metadata import LabelClass
from ppool.models import Checkpoint
from ppool.module import evaluating
from ppool.training.dataset import SegmentationDataset
from ppool.training.evaluate import fed, predict

__all__ = ["chosen_indices", "draw_masks"]

_GAP = 4
_LINE = 24
_TEXT = 16


def chosen_indices(count: int, wanted: int = 10) -> list[int]:
    """Which of ``count`` images are shown: the first and every (count - 1) // (wanted - 1)-th.

    Example:
        >>> chosen_indices(233)
        [0, 25, 50, 75, 100, 125, 150, 175, 200, 225]
    """
    step = max(1, (count - 1) // (wanted - 1))
    return list(range(0, count, step))[:wanted]


def draw_masks(
    checkpoints: Sequence[Path], dataset: SegmentationDataset, folder: Path, *, given: bool
) -> list[Path]:
    """Write ``masks.png``: a row for each of ten images, a column for each network.

    Columns are called as the folders of their checkpoints. Nothing is made smaller, for details
    are what is to be seen.

    Args:
        checkpoints: Networks of the data set's classes.
        dataset: Held-out images, of which :func:`chosen_indices` are shown.
        folder: Where to write; made if missing.
        given: Show photograph and label before the masks; they are somebody's, as the picture is
            then.

    Returns:
        What was written.

    Raises:
        ValueError: if a network has other classes than the data set.
    """
    samples = [dataset[index] for index in chosen_indices(len(dataset))]
    columns: dict[str, list[NDArray[np.uint8]]] = {}
    if given:
        columns["photograph"] = [sample.image for sample in samples]
        columns["label"] = [_coloured(sample.mask, dataset.classes) for sample in samples]
    for path in checkpoints:
        trained = Checkpoint.load(path)
        if [c.name for c in trained.classes] != [c.name for c in dataset.classes]:
            raise ValueError(f"{path}: expected a network of the data set's classes")
        model, normalise = trained.build(), Normalisation(trained.mean, trained.std)
        with evaluating(model):
            masks = [predict(model, fed(s, trained.input), normalise) for s in samples]
        columns[path.parent.name] = [_coloured(mask, dataset.classes) for mask in masks]
    sheet = _sheet(columns, dataset.classes)
    if not given:
        sheet = sheet.quantize(256, dither=Image.Dither.NONE)
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "masks.png", optimize=True)
    return [folder / "masks.png"]


def _coloured(mask: NDArray[np.uint8], classes: Sequence[LabelClass]) -> NDArray[np.uint8]:
    """Each class in its colour and void in white, uint8 [H, W, 3]."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(classes)] = [ImageColor.getrgb(entry.color) for entry in classes]
    return palette[mask]


def _sheet(
    columns: dict[str, list[NDArray[np.uint8]]], classes: Sequence[LabelClass]
) -> Image.Image:
    """Titles, the panels with as much room as the largest needs, and the classes' colours."""
    panels = [panel for column in columns.values() for panel in column]
    height, width = (max(panel.shape[axis] for panel in panels) + _GAP for axis in (0, 1))
    rows = len(panels) // len(columns)
    sheet = Image.new("RGB", (width * len(columns), height * rows + 2 * _LINE), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for place, (title, column) in enumerate(columns.items()):
        pen.text((place * width, 2), title, "black", font)
        for row, panel in enumerate(column):
            sheet.paste(Image.fromarray(panel), (place * width, _LINE + row * height))
    left, top = 0, _LINE + rows * height
    for entry in classes:
        pen.rectangle((left, top + 4, left + _TEXT, top + 4 + _TEXT), entry.color, "black")
        pen.text((left + _TEXT + 4, top + 2), entry.name, "black", font)
        left += _TEXT + 16 + round(font.getlength(entry.name))
    return sheet
