"""Data sets held in memory, for images that are drawn slowly or looked at often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppool.metadata import LabelClass
from ppool.training.dataset import Sample, SegmentationDataset
from research.fineshapes import FineShapesObjects

__all__ = ["InMemory", "Kept"]


class Kept:
    """A data set whose samples are made once, when first asked for, and kept.

    Args:
        dataset: Where they come from.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        self._dataset = dataset
        self._samples: dict[int, Sample] = {}
        self.classes = dataset.classes

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._samples:
            self._samples[index] = self._dataset[index]
        return self._samples[index]


class InMemory:
    """Samples that are all there.

    Args:
        samples: The samples.
        classes: Names and colours, in mask order.
    """

    def __init__(self, samples: Sequence[Sample], classes: tuple[LabelClass, ...]) -> None:
        self._samples = samples
        self.classes = classes

    @classmethod
    def of_objects(cls, objects: FineShapesObjects) -> InMemory:
        """Images of one class each as samples whose every pixel has that label."""
        pairs = (objects[i] for i in range(len(objects)))
        samples = [
            Sample(image, np.full(image.shape[:2], label, np.uint8)) for image, label in pairs
        ]
        return cls(samples, objects.classes)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]
