"""What every data set gives to training and evaluation: labelled images by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import LabelClass

__all__ = ["HELD_OUT_SEED", "IGNORE", "Image", "Sample", "SegmentationDataset"]

Image = NDArray[np.uint8]

# The label of pixels that neither training nor evaluation counts (PASCAL VOC's "void").
IGNORE = 255
# Held-out drawings take their seeds from here on, so none is ever a training drawing.
HELD_OUT_SEED = 1 << 40


@dataclass(frozen=True)
class Sample:
    """An image and its labels.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        mask: uint8 [H, W], a class id per pixel; 255 is not counted.
    """

    image: Image
    mask: Image


class SegmentationDataset(Protocol):
    """Labelled images, made or read when asked for."""

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Names and colours, in mask order: ids 0, 1, 2, ..."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
