"""What a pixel's surroundings say of it, further off than a network sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ppool.export._behind import STRIDE, Part, Sight

__all__ = ["Blocks", "Whole"]

# Cells of what was looked at, and how many of them wide the surroundings are: 480 pixels.
CELL, AROUND = 4, 15
# Names are told apart at every so many pixels.
FINE = 2
# How sure one pixel may be, and how much the surroundings weigh against it.
SUREST, WEIGHT = 4.0, 4.0
# Keeps means of nothing finite.
NONE = 1e-4
# Shares of a photo from which on a class gains, and at which it gains the most.
MOST, ALL = 0.65, 0.85
# The most it gains.
GAIN = 4.0


class Blocks(Part):
    """Calls a word what the words around it are called.

    Print and handwriting come in blocks, and a network that sees a word well enough to cut it out
    tells less well which of both it is. Among such classes alone, each pixel's margins are added to
    the mean of those around it; the largest of their logits stays as it was, so that what is none
    of them stays so.

    Args:
        ids: Of the classes that come in blocks.
        classes: How many there are.
    """

    def __init__(self, ids: Sequence[int], classes: int) -> None:
        super().__init__([[index] for index in ids], classes)

    def forward(self, seen: Sight) -> Tensor:
        """How far, [N, ids, H, W], their logits move."""
        found = seen.beliefs[:, self.ids].sum(1, keepdim=True)
        # One answer for two by two pixels is fine enough for a name.
        ours = [seen.logits[:, index : index + 1, ::FINE, ::FINE] for index in self.ids]
        fine = torch.cat(ours, 1)
        some = fine[..., :: STRIDE // FINE, :: STRIDE // FINE]
        margin = (some - some.mean(1, keepdim=True)).clamp(-SUREST / 2, SUREST / 2)
        cells = F.avg_pool2d(torch.cat((found, found * margin), 1), CELL, CELL, ceil_mode=True)
        rows = F.avg_pool2d(cells, (AROUND, 1), 1, (AROUND // 2, 0))
        around = F.avg_pool2d(rows, (1, AROUND), 1, (0, AROUND // 2))
        lean = around[:, 1:] / (around[:, :1] + NONE)
        lean = F.interpolate(lean, fine.shape[-2:], mode="bilinear", align_corners=False)
        moved = fine + WEIGHT * lean
        kept = fine.amax(1, keepdim=True) - moved.amax(1, keepdim=True)
        return F.interpolate(moved + kept - fine, seen.logits.shape[-2:], mode="nearest")


class Whole(Part):
    """Where most of a photo is of one class, such as picture, the rest is more likely to be.

    Args:
        index: Of the class.
        classes: How many there are.
    """

    def __init__(self, index: int, classes: int) -> None:
        super().__init__([[index]], classes)

    def forward(self, seen: Sight) -> Tensor:
        """How far, [N, 1, H, W], its logits move: all of a photo's alike."""
        share = seen.beliefs[:, self.ids].mean((2, 3), keepdim=True)
        gain = GAIN * ((share - MOST) / (ALL - MOST)).clamp(0, 1)
        return gain.expand(-1, -1, *seen.logits.shape[2:])
