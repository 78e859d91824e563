"""What every data set gives to training and evaluation: labelled images by number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import LabelClass
from ppool.scoring import IGNORE

__all__ = ["HELD_OUT_SEED", "IGNORE", "Image", "Sample", "SegmentationDataset"]

Image = NDArray[np.uint8]

# Held-out drawings take their seeds from here on, so none is ever a training drawing.
HELD_OUT_SEED = 1 << 40


@dataclass(frozen=True)
class Sample:
    """An image and its labels.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        mask: uint8 [H, W], a class id per pixel; 255 is not counted.
        file: Where the image was read from, if it was: an evaluation feeds it as the service would.
    """

    image: Image
    mask: Image
    file: Path | None = None


class SegmentationDataset(Protocol):
    """Labelled images, made or read when asked for."""

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Names and colours, in mask order: ids 0, 1, 2, ..."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
