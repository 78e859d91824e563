"""Ink on a page: its border is where a pixel is half as dark as the ink of that page."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Ink"]

# Every so many rows and columns are looked at to learn a page's greys.
STRIDE = 4
# On the logits before they say what is ink enough to be looked at: those in doubt lie on edges.
SHARPENED = 2.0
# From a pixel as dark as the ink to one as light as the ground.
STRENGTH = 7.0
# Greys of ink and ground that are closer than the root of this tell little.
CLOSE = 0.01
# Where less than this share is ink, as in photographs, it tells little.
LITTLE = 0.01
# Keeps means of nothing finite, in float16 as well.
NONE = 1e-4


class Ink(nn.Module):
    """Moves the logits of ink by how dark a pixel is beside the ink and the ground of its page.

    A network sees strokes of all ages and knows no page's own: faint ink comes out too thin, dark
    ink too fat. Once it has said roughly where ink is, the mean grey of that and of the rest give
    the level between them, and a pixel darker than that gains, one as dark as the ink by half of
    ``STRENGTH``, the most; of light ink on dark ground a lighter one. It is one step of k-means,
    started by the network and held by it where the two do not come apart.

    Args:
        ids: Of the classes that are ink.
        classes: How many there are.
    """

    chosen: Tensor

    def __init__(self, ids: Sequence[int], classes: int) -> None:
        super().__init__()
        chosen = torch.zeros(classes)
        chosen[list(ids)] = 1
        self.register_buffer("chosen", chosen[:, None, None], persistent=False)

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """The logits, float32 [N, K, H, W], of images [N, 3, H, W] of 0 to 255, moved.

        Raises:
            ValueError: if logits are not as many as pixels and classes.
        """
        if logits.shape != (image.shape[0], len(self.chosen), *image.shape[2:]):
            raise ValueError(
                f"ink: expected logits of {len(self.chosen)} classes for every pixel, got "
                f"{list(logits.shape[1:])} for {list(image.shape[2:])} pixels"
            )
        grey = image.mean(1, keepdim=True) / 255
        some = grey[..., ::STRIDE, ::STRIDE]
        sharp = (SHARPENED * logits[..., ::STRIDE, ::STRIDE]).softmax(1)
        found = (sharp * self.chosen).sum(1, keepdim=True)
        share, whole = found.mean((2, 3), keepdim=True), some.mean((2, 3), keepdim=True)
        part = (found * some).mean((2, 3), keepdim=True)
        ink = (part + NONE * whole) / (share + NONE)
        ground = (whole - part + NONE * whole) / (1 - share + NONE)
        contrast = ground - ink
        slope = contrast / (contrast.square() + CLOSE)
        gain = (slope * ((ink + ground) / 2 - grey)).clamp(-0.5, 0.5)
        return logits + gain * (STRENGTH * share / (share + LITTLE)) * self.chosen
