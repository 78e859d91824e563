"""How a mask is scored against its truth: one integer confusion matrix over a whole set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["IGNORE", "WIDE_IGNORE", "ConfusionMatrix"]

# The label of pixels that are not counted (PASCAL VOC's "void").
IGNORE = 255
# That of masks with more classes than bytes can tell.
WIDE_IGNORE = 65535


class ConfusionMatrix:
    """Counts of (true class, predicted class) over all pixels seen.

    Attributes:
        counts: int64 [K, K], a row for each true class.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self.counts = counts

    def update(self, truth: NDArray[Any], prediction: NDArray[Any]) -> None:
        """Count pixels; those whose truth is 255, or 65535 of more than 256 classes, are left out.

        Shape:
            Both uint8, or uint16, of equal shape.

        Raises:
            ValueError: if the shapes differ or a value is no class.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"expected equal shapes, got {truth.shape} and {prediction.shape}")
        n = len(self.counts)
        seen = truth != (IGNORE if n <= 256 else WIDE_IGNORE)
        truth, prediction = truth[seen], prediction[seen]
        highest = max(truth.max(initial=0), prediction.max(initial=0))
        if highest >= n:
            raise ValueError(f"expected classes 0 to {n - 1}, got {highest}")
        pairs = truth.astype(np.int64) * n + prediction
        self.counts += np.bincount(pairs, minlength=n * n).reshape(n, n)

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU of each class: 0 if only one side has it, NaN if neither has."""
        intersection = np.diag(self.counts)
        return _share(intersection, self.counts.sum(0) + self.counts.sum(1) - intersection)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Share of each class's pixels that are right; NaN for a class without any."""
        return _share(np.diag(self.counts), self.counts.sum(1))

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that truth or prediction has."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes that truth has."""
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Share of counted pixels that are right."""
        return float(_share(np.diag(self.counts).sum(), self.counts.sum()))


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: NDArray[np.float64]) -> float:
    found = values[~np.isnan(values)]
    return float(found.mean()) if found.size else float("nan")
