"""Evaluation: one integer confusion matrix over a whole split, and one along the boundaries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from ppool.metadata import LabelClass
from ppool.training.boundary import boundary_band
from ppool.training.dataset import IGNORE, Sample

__all__ = [
    "BAND",
    "IGNORE",
    "ConfusionMatrix",
    "Evaluation",
    "Normalisation",
    "evaluate",
    "predict",
]

# Pixels on each side of a boundary. Published curves run from 1 to 20 or more (Krähenbühl and
# Koltun, NIPS 2011); 5 is the width of PASCAL VOC's own void outline.
BAND = 5


class ConfusionMatrix:
    """Counts of (true class, predicted class) over all pixels seen.

    Attributes:
        counts: int64 [K, K], a row for each true class.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self.counts = counts

    def update(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count pixels; those whose truth is 255 are left out.

        Shape:
            Both uint8 of equal shape.

        Raises:
            ValueError: if the shapes differ or a value is no class.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"expected equal shapes, got {truth.shape} and {prediction.shape}")
        n = len(self.counts)
        seen = truth != IGNORE
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


class Evaluation:
    """What a network got right on a split: everywhere, and within a band along the boundaries.

    Attributes:
        band: Half the width of the band in pixels; see
            :func:`ppool.training.boundary.boundary_band`.
        counts: int64 [2, K, K], the matrices of all pixels and of the band. The shares of several
            processes can be added.
        seconds: For each image, the time from uint8 image to mask.
    """

    def __init__(self, num_classes: int, band: int = BAND) -> None:
        self.band = band
        self.counts: NDArray[np.int64] = np.zeros((2, num_classes, num_classes), np.int64)
        self.seconds: list[float] = []

    @property
    def everywhere(self) -> ConfusionMatrix:
        """The counts of all pixels."""
        return ConfusionMatrix(self.counts[0])

    @property
    def boundary(self) -> ConfusionMatrix:
        """The counts of the band."""
        return ConfusionMatrix(self.counts[1])

    def update(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count one image, uint8 [H, W] each; pixels whose truth is 255 are left out."""
        self.everywhere.update(truth, prediction)
        band = boundary_band(truth, self.band)
        self.boundary.update(truth[band], prediction[band])

    def scores(self, classes: Sequence[LabelClass]) -> dict[str, Any]:
        """The numbers people quote, with IoU by class name; what no pixel decides is None."""

        def by_name(values: NDArray[np.float64]) -> dict[str, float | None]:
            return {c.name: _rounded(v) for c, v in zip(classes, values, strict=True)}

        whole, boundary = self.everywhere, self.boundary
        return {
            "mean_iou": _rounded(whole.mean_iou),
            "boundary_iou": _rounded(boundary.mean_iou),
            "pixel_accuracy": _rounded(whole.pixel_accuracy),
            "mean_accuracy": _rounded(whole.mean_accuracy),
            "iou": by_name(whole.iou),
            "boundary_iou_by_class": by_name(boundary.iou),
            "boundary_band_pixels": self.band,
        }

    def table(self, classes: Sequence[LabelClass]) -> Table:
        """The scores in per cent, a row for each class, for the terminal."""
        grid = Table("class", "IoU", f"IoU within {self.band} px of a boundary", "accuracy")
        whole, boundary = self.everywhere, self.boundary
        columns = (whole.iou, boundary.iou, whole.accuracy)
        for label, *values in zip(classes, *columns, strict=True):
            grid.add_row(label.name, *map(_percent, values))
        grid.add_section()
        means = (whole.mean_iou, boundary.mean_iou, whole.mean_accuracy)
        grid.add_row("mean", *map(_percent, means))
        grid.add_row("pixel accuracy", "", "", _percent(whole.pixel_accuracy))
        return grid

    @property
    def milliseconds(self) -> float:
        """Median time an image, without the first, which warms up."""
        return 1000 * median(self.seconds[1:] or self.seconds or [float("nan")])


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of RGB scaled to [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """uint8 [N, H, W, 3] to normalised float32 [N, 3, H, W]."""
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return x.sub_(mean[:, None, None]).div_(std[:, None, None])


def predict(
    model: nn.Module, image: NDArray[np.uint8], normalise: Normalisation, multiple: int
) -> NDArray[np.uint8]:
    """Mask of one image, padded at the bottom and right by its edge, as the service does.

    Shape:
        uint8 [H, W, 3] to uint8 [H, W].
    """
    height, width = image.shape[:2]
    padding = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    x = normalise(np.pad(image, padding, mode="edge")[None])
    with torch.inference_mode():
        logits = model(x.to(next(model.parameters()).device))
        if logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)
    mask: NDArray[np.uint8] = logits.argmax(1)[0].to(torch.uint8).cpu().numpy()
    return mask[:height, :width]


def evaluate(
    model: nn.Module,
    samples: Iterable[Sample],
    *,
    num_classes: int,
    normalise: Normalisation,
    multiple: int,
    band: int = BAND,
) -> Evaluation:
    """Run ``model`` over every sample, in evaluation mode, and count."""
    evaluation = Evaluation(num_classes, band)
    was_training = model.training
    model.eval()
    for sample in samples:
        began = time.perf_counter()
        prediction = predict(model, sample.image, normalise, multiple)
        evaluation.seconds.append(time.perf_counter() - began)
        evaluation.update(sample.mask, prediction)
    model.train(was_training)
    return evaluation
