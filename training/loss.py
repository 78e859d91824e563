"""Cross-entropy as a recipe asks for it, the same however a batch is divided."""

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


def total_loss(logits: Tensor, masks: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy summed over the pixels that carry a label, in float32.

    Shape:
        ``logits`` [N, K, h, w], brought to the masks' size bilinearly; ``masks`` int64 [N, H, W]
        with 255 left out; ``weights`` [K]. The result is a scalar.
    """
    logits = logits.float()
    if logits.shape[-2:] != masks.shape[-2:]:
        logits = F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, masks, weights, ignore_index=IGNORE, reduction="sum")


def divisor(masks: Tensor, loss: str, weights: Tensor | None) -> Tensor:
    """What the total of these masks is divided by, once added up over a whole batch.

    For ``mean`` the number of labelled pixels, for ``balanced`` their weight, and for ``sum`` the
    number of images: 2e-7 * ``sum`` is 0.0206 * ``mean`` on a wholly labelled 321 x 321 crop.
    """
    if loss == "sum":
        return torch.tensor(float(len(masks)), device=masks.device)
    labelled = masks[masks != IGNORE]
    if weights is None:
        return torch.tensor(float(labelled.numel()), device=masks.device)
    return weights[labelled].sum()
