"""Data sets held in memory, for images that are drawn slowly or looked at often."""

from __future__ import annotations

from collections.abc import Sequence

from ppool.metadata import LabelClass
from ppool.training.dataset import Sample, SegmentationDataset

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

    @property
    def identity(self) -> str | None:
        """What the data set says of itself, if it does; see :mod:`ppool.training.identity`."""
        return getattr(self._dataset, "identity", None)

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

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]
