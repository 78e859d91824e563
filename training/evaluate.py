"""Evaluation: one integer confusion matrix over a whole split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from training.pages import Page

__all__ = ["IGNORE", "ConfusionMatrix", "evaluate", "predict"]

IGNORE = 255


class ConfusionMatrix:
    """Counts of (true class, predicted class) over all pixels seen, in int64."""

    def __init__(self, num_classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)

    def update(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count one image; pixels whose truth is 255 are left out.

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
        """IoU of each class; NaN where neither truth nor prediction has it."""
        intersection = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - intersection
        return np.where(union > 0, intersection / np.maximum(union, 1), np.nan)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur."""
        return float(np.nanmean(self.iou))

    @property
    def pixel_accuracy(self) -> float:
        """Share of counted pixels that are right."""
        return float(np.diag(self.counts).sum() / max(self.counts.sum(), 1))


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
        logits = model(x)
        if logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)
    mask: NDArray[np.uint8] = logits.argmax(1)[0].to(torch.uint8).numpy()
    return mask[:height, :width]


def evaluate(
    model: nn.Module,
    pages: Iterable[Page],
    *,
    num_classes: int,
    normalise: Normalisation,
    multiple: int,
) -> ConfusionMatrix:
    """Run ``model`` over every page and count."""
    matrix = ConfusionMatrix(num_classes)
    was_training = model.training
    model.eval()
    for page in pages:
        matrix.update(page.mask, predict(model, page.image, normalise, multiple))
    model.train(was_training)
    return matrix
