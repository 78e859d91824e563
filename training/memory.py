"""Data sets held in memory, for images that are drawn slowly or looked at often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppool.metadata import LabelClass
from ppool.training.dataset import Sample, SegmentationDataset
from ppool.training.fineshapes import FineShapesObjects

__all__ = ["InMemory"]


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
    def of(cls, dataset: SegmentationDataset) -> InMemory:
        """All of a data set."""
        return cls([dataset[i] for i in range(len(dataset))], dataset.classes)

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
