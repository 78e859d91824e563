"""Evaluation: what the service would answer, counted over a whole split and along boundaries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from ppool.feeding import Feed, Normalisation, feed
from ppool.metadata import InputPolicy, LabelClass
from ppool.module import evaluating
from ppool.scoring import ConfusionMatrix
from ppool.service.codecs.images import decode_file
from ppool.service.codecs.resizing import reduced
from ppool.training.boundary import boundary_band
from ppool.training.dataset import Sample
from ppool.training.ranking import Ranking

__all__ = ["BAND", "Evaluation", "evaluate", "fed", "predict"]

# Pixels on each side of a boundary. Published curves run from 1 to 20 or more (Krähenbühl and
# Koltun, NIPS 2011); 5 is the width of PASCAL VOC's own void outline.
BAND = 5


class Evaluation:
    """What a network got right on a split: everywhere, and within a band along the boundaries.

    Attributes:
        band: Half the width of the band in pixels; see
            :func:`ppool.training.boundary.boundary_band`.
        counts: int64 [2, K, K], the matrices of all pixels and of the band. The shares of several
            processes can be added.
        ranking: Of two classes, how likely the second was called; None of more.
        seconds: For each image, the time from the fed image to the mask.
    """

    def __init__(self, num_classes: int, band: int = BAND) -> None:
        self.band = band
        self.counts: NDArray[np.int64] = np.zeros((2, num_classes, num_classes), np.int64)
        self.ranking = Ranking() if num_classes == 2 else None
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
        """The numbers people quote, with IoU by class name; what no pixel decides is None.

        ``auc``, that of the ROC curve, is there of two classes only.
        """

        def by_name(values: NDArray[np.float64]) -> dict[str, float | None]:
            return {c.name: _rounded(v) for c, v in zip(classes, values, strict=True)}

        whole, boundary = self.everywhere, self.boundary
        ranked = {} if self.ranking is None else {"auc": _rounded(self.ranking.auc)}
        return {
            "mean_iou": _rounded(whole.mean_iou),
            "boundary_iou": _rounded(boundary.mean_iou),
            "pixel_accuracy": _rounded(whole.pixel_accuracy),
            "mean_accuracy": _rounded(whole.mean_accuracy),
            "iou": by_name(whole.iou),
            "boundary_iou_by_class": by_name(boundary.iou),
            "boundary_band_pixels": self.band,
            **ranked,
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
        if self.ranking is not None:
            grid.add_row("area under the ROC curve", _percent(self.ranking.auc), "", "")
        return grid

    @property
    def milliseconds(self) -> float:
        """Median time an image, without the first, which warms up."""
        return 1000 * median(self.seconds[1:] or self.seconds or [float("nan")])


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def predict(model: nn.Module, photo: Feed, normalise: Normalisation) -> NDArray[np.uint8]:
    """The mask of a photo at its own size, uint8 [H, W], as an exported file and the service do."""
    return _mask(_logits(model, photo, normalise), photo)


def _logits(model: nn.Module, photo: Feed, normalise: Normalisation) -> Tensor:
    """Of the fed image at the photo's own size, padding included, float32 [K, H, W]."""
    x = torch.from_numpy(normalise(photo.image[None]))
    with torch.inference_mode():
        logits: Tensor = model(x.to(next(model.parameters()).device))
        if logits.shape[-2:] != photo.whole:
            logits = F.interpolate(logits, photo.whole, mode="bilinear", align_corners=False)
    return logits[0]


def _mask(logits: Tensor, photo: Feed) -> NDArray[np.uint8]:
    labels: NDArray[np.uint8] = logits.argmax(0).to(torch.uint8).cpu().numpy()
    return photo.mask(labels)


def fed(sample: Sample, policy: InputPolicy) -> Feed:
    """The image of a sample as the service would feed it: from its file, where it has one."""
    if sample.file is not None:
        photo = decode_file(sample.file, policy)
        return feed(photo.image, policy, (photo.height, photo.width))
    height, width = sample.image.shape[:2]
    return feed(reduced(sample.image, policy), policy, (height, width))


def evaluate(
    model: nn.Module,
    samples: Iterable[Sample],
    *,
    num_classes: int,
    normalise: Normalisation,
    policy: InputPolicy,
    band: int = BAND,
) -> Evaluation:
    """Run ``model`` over every sample, in evaluation mode, and count at the images' own size."""
    evaluation = Evaluation(num_classes, band)
    with evaluating(model):
        for sample in samples:
            photo = fed(sample, policy)
            began = time.perf_counter()
            logits = _logits(model, photo, normalise)
            prediction = _mask(logits, photo)
            evaluation.seconds.append(time.perf_counter() - began)
            evaluation.update(sample.mask, prediction)
            if evaluation.ranking is not None:
                margin = (logits[1] - logits[0]).float().cpu().numpy()
                evaluation.ranking.update(sample.mask, photo.mask(margin))
    return evaluation
