"""A data set held in memory, for images that are drawn slowly or looked at often."""

from __future__ import annotations

from ppool.training.dataset import Sample, SegmentationDataset

__all__ = ["Kept"]


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
