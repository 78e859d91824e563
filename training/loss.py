"""The loss as a recipe asks for it: all but ``dice`` the same however a batch is divided."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ppool.training.dataset import IGNORE, SegmentationDataset

__all__ = ["balancing_weights", "divisor", "total_loss"]


def balancing_weights(dataset: SegmentationDataset) -> Tensor:
    """Square root of inverse frequency, so that thin classes count without drowning the rest."""
    num_classes = len(dataset.classes)
    counts = np.zeros(num_classes, np.int64)
    for index in range(len(dataset)):
        counts += np.bincount(dataset[index].mask.ravel(), minlength=256)[:num_classes]
    frequency = counts / counts.sum()
    weights = 1 / np.sqrt(np.maximum(frequency, 1e-2))
    return torch.tensor(weights / np.sum(weights * frequency), dtype=torch.float32)


def total_loss(logits: Tensor, masks: Tensor, loss: str, weights: Tensor | None) -> Tensor:
    """The loss summed over the pixels that carry a label, in float32.

    It is cross-entropy; for ``dice`` every pixel adds the images' Dice loss, which is the mean over
    the classes in them of 1 - 2 |P G| / (|P| + |G|) for the found probabilities P and the labels G
    (Milletari et al., "V-Net", 3DV 2016): an F-measure, on which rare classes weigh as much as any.

    Shape:
        ``logits`` [N, K, h, w], brought to the masks' size bilinearly; ``masks`` int64 [N, H, W]
        with 255 left out; ``weights`` [K]. The result is a scalar.
    """
    logits = logits.float()
    if logits.shape[-2:] != masks.shape[-2:]:
        logits = F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, masks, weights, ignore_index=IGNORE, reduction="sum")
    return total + _dice(logits, masks) if loss == "dice" else total


def _dice(logits: Tensor, masks: Tensor) -> Tensor:
    """The Dice loss of all images together times the labelled pixels."""
    labelled = masks != IGNORE
    labels = torch.where(labelled, masks, 0).flatten()
    share = labelled.flatten().float()
    found = logits.softmax(1).movedim(1, 0).flatten(1) * share
    zeros = found.new_zeros(len(found))
    both = zeros.scatter_add(0, labels, found.gather(0, labels[None])[0])
    pixels = zeros.scatter_add(0, labels, share)
    dice = 2 * both / (found.sum(1) + pixels).clamp_min(1e-6)
    there = (pixels > 0).float()
    return (there * (1 - dice)).sum() / there.sum().clamp_min(1) * pixels.sum()


def divisor(masks: Tensor, loss: str, weights: Tensor | None) -> Tensor:
    """What the total of these masks is divided by, once added up over a whole batch.

    For ``mean`` and ``dice`` the number of labelled pixels, for ``balanced`` their weight, and for
    ``sum`` the number of images: 2e-7 * ``sum`` is 0.0206 * ``mean`` on a wholly labelled crop of
    321 x 321.
    """
    if loss == "sum":
        return torch.tensor(float(len(masks)), device=masks.device)
    labelled = masks[masks != IGNORE]
    if weights is None:
        return torch.tensor(float(labelled.numel()), device=masks.device)
    return weights[labelled].sum()
