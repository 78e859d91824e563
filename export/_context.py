"""What a pixel's surroundings say of it, further off than a network sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ppool.export._behind import FINE, NONE, STRIDE, Part, Sight

__all__ = ["Blocks", "Whole"]

# Cells of what was looked at, and how many of them wide the surroundings are: 672 pixels.
CELL, AROUND = 4, 21
# Levels of grey, from black to white, that have surroundings of their own.
LEVELS = 7
# Of so many fine rows and columns about a pixel the darkest counts.
RIM = 5
# How sure one pixel may be, and how much the surroundings weigh against it.
SUREST, WEIGHT = 4.0, 4.0
# Shares of a photo from which on a class gains, and at which it gains the most.
MOST, ALL = 0.45, 0.65
# The most it gains.
GAIN = 4.0
# How likely it is somewhere, in the mean of so many looks by as many, unless it loses; at so much
# less it loses the most.
SOMEWHERE, PLACE, UNSURE, LOSS = 0.9, 5, 0.1, 2.0


class Blocks(Part):
    """Calls a word what the words around it are called.

    Print and handwriting come in blocks, and a network that sees a word well enough to cut it out
    tells less well which of both it is. Among such classes alone, each pixel's margins are added to
    the mean of those around it that are as dark: a note amid print is of another ink. The largest
    of their logits stays as it was, so that what is none of them stays so.

    Args:
        ids: Of the classes that come in blocks.
        classes: How many there are.
    """

    levels: Tensor

    def __init__(self, ids: Sequence[int], classes: int) -> None:
        super().__init__([[index] for index in ids], classes)
        levels = torch.arange(float(LEVELS))[None, :, None, None]
        self.register_buffer("levels", levels, persistent=False)

    def forward(self, seen: Sight) -> Tensor:
        """How far, [N, ids, H, W], their logits move."""
        found = seen.believed(self.ids)
        # One answer for two by two pixels is fine enough for a name.
        fine = torch.cat([seen.logits[:, index : index + 1] for index in self.ids], 1)
        near = self._near(seen.fine)
        step = STRIDE // FINE
        some = fine[..., ::step, ::step]
        margin = (some - some.mean(1, keepdim=True)).clamp(-SUREST / 2, SUREST / 2)
        weight = found * near[..., ::step, ::step]
        wholes = self._around(weight) + NONE
        leans = []
        # Margins are nought together, so those of the last follow from the others'.
        for index in range(len(self.ids) - 1):
            lean = self._around(weight * margin[:, index : index + 1]) / wholes
            lean = F.interpolate(lean, fine.shape[-2:], mode="bilinear", align_corners=False)
            leans.append((lean * near).sum(1, keepdim=True))
        told = torch.cat(leans, 1)
        moved = fine + WEIGHT * torch.cat((told, -told.sum(1, keepdim=True)), 1)
        kept = fine.amax(1, keepdim=True) - moved.amax(1, keepdim=True)
        return F.interpolate(moved + kept - fine, seen.grey.shape[-2:], mode="nearest")

    def _near(self, grey: Tensor) -> Tensor:
        """How near what is dark about each pixel is to each level: 1 at it, 0 from the next on."""
        light = grey * -(LEVELS - 1)
        # The rim of a stroke is as dark as its core, by the ink that it is of.
        level = -F.max_pool2d(light, RIM, 1, RIM // 2)
        return (1 - (level - self.levels).abs()).clamp(min=0)

    @staticmethod
    def _around(values: Tensor) -> Tensor:
        cells = F.avg_pool2d(values, CELL, CELL, ceil_mode=True)
        rows = F.avg_pool2d(cells, (AROUND, 1), 1, (AROUND // 2, 0))
        return F.avg_pool2d(rows, (1, AROUND), 1, (0, AROUND // 2))


class Whole(Part):
    """Where most of a photo is of one class, such as picture, the rest is more likely to be.

    Where nothing of it surely is, as on a sheet of paper in shadow, none of it is likely to be.

    Args:
        index: Of the class.
        classes: How many there are.
    """

    def __init__(self, index: int, classes: int) -> None:
        super().__init__([[index]], classes)

    def forward(self, seen: Sight) -> Tensor:
        """How far, [N, 1, H, W], its logits move: all of a photo's alike."""
        found = seen.believed(self.ids)
        share = found.mean((2, 3), keepdim=True)
        gain = GAIN * ((share - MOST) / (ALL - MOST)).clamp(0, 1)
        places = F.avg_pool2d(found, PLACE, 1, PLACE // 2, count_include_pad=False)
        loss = LOSS * ((SOMEWHERE - places.amax((2, 3), keepdim=True)) / UNSURE).clamp(0, 1)
        return (gain - loss).expand(-1, -1, *seen.grey.shape[2:])
