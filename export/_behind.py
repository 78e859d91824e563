"""What stands behind a network: its logits, moved by what the whole photo says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FINE", "NONE", "SHARPENED", "STRIDE", "Moved", "Part", "Sight"]

# Every so many rows and columns are looked at to learn of a photo as a whole.
STRIDE = 8
# And so many for what is told of a pixel alone.
FINE = 2
# Of a photo's bytes.
WHITE = 255.0
# On the logits before they say what is likely enough to be looked at: those in doubt lie on edges.
SHARPENED = 2.0
# Keeps means of nothing finite, in float16 as well.
NONE = 1e-4


@dataclass(frozen=True)
class Sight:
    """What the parts of a layer look at.

    Attributes:
        logits: Of every second pixel, float32 [N, K, H / 2, W / 2].
        grey: The mean of the photo's channels, [N, 1, H, W] of 0 to 1.
        fine: The same of every second pixel.
        beliefs: Sharpened probabilities of every eighth pixel, [N, K, H / 8, W / 8].
    """

    logits: Tensor
    grey: Tensor
    fine: Tensor
    beliefs: Tensor

    def believed(self, ids: Sequence[int]) -> Tensor:
        """How likely it is one of these classes, [N, 1, H / 8, W / 8]."""
        return reduce(torch.add, [self.beliefs[:, index : index + 1] for index in ids])


class Part(nn.Module):
    """Says how far pixels of some classes move: takes a :class:`Sight`, gives [N, P, H, W].

    Args:
        groups: The ids of the classes that each of the P moves, all of them as far.
        classes: How many there are.
    """

    directions: Tensor

    def __init__(self, groups: Sequence[Sequence[int]], classes: int) -> None:
        super().__init__()
        self.ids = [index for group in groups for index in group]
        directions = torch.zeros(classes, len(groups), 1, 1)
        for column, group in enumerate(groups):
            directions[list(group), column] = 1
        self.register_buffer("directions", directions, persistent=False)


class Moved(nn.Module):
    """Adds to the logits what its parts say."""

    directions: Tensor

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        directions = torch.cat([part.directions for part in parts], 1)
        self.register_buffer("directions", directions, persistent=False)

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """The logits, float32 [N, K, H, W], of images [N, 3, H, W] of 0 to 255, moved.

        Raises:
            ValueError: if logits are not as many as pixels.
        """
        if logits.shape[2:] != image.shape[2:]:
            raise ValueError(
                f"behind: expected logits for every pixel, got {list(logits.shape[2:])} for "
                f"{list(image.shape[2:])} pixels"
            )
        # At one place, so that a network that shuffles pixels last need not do so for it.
        some = logits[..., ::FINE, ::FINE]
        step = STRIDE // FINE
        beliefs = (SHARPENED * some[..., ::step, ::step]).softmax(1)
        # A sum of three takes half of the time of a mean along an axis.
        red, green, blue = (image[:, index : index + 1] for index in range(3))
        grey = (red + green + blue) * (1 / (3 * WHITE))
        seen = Sight(some, grey, grey[..., ::FINE, ::FINE], beliefs)
        moves = [part(seen) for part in self.parts]
        wide = moves[0] if len(moves) == 1 else torch.cat(moves, 1)
        # One pass over all classes rather than one for each part.
        return logits + F.conv2d(wide, self.directions)
