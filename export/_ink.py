"""Ink on a page: its border is where a pixel is half as dark as the ink of that page."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ppool.export._behind import STRIDE, Part, Sight

__all__ = ["Ink"]

# From a pixel as dark as the ink to one as light as the ground.
STRENGTH = 7.0
# Greys of ink and ground that are closer than the root of this tell little.
CLOSE = 0.01
# Where less than this share is ink, as in photographs, it tells little.
LITTLE = 0.01
# Keeps means of nothing finite, in float16 as well.
NONE = 1e-4


class Ink(Part):
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

    def __init__(self, ids: Sequence[int], classes: int) -> None:
        super().__init__([ids], classes)

    def forward(self, seen: Sight) -> Tensor:
        """How far, [N, 1, H, W], the logits of ink move."""
        grey = seen.image.mean(1, keepdim=True) / 255
        some = grey[..., ::STRIDE, ::STRIDE]
        found = seen.beliefs[:, self.ids].sum(1, keepdim=True)
        share, whole = found.mean((2, 3), keepdim=True), some.mean((2, 3), keepdim=True)
        part = (found * some).mean((2, 3), keepdim=True)
        ink = (part + NONE * whole) / (share + NONE)
        ground = (whole - part + NONE * whole) / (1 - share + NONE)
        contrast = ground - ink
        slope = contrast / (contrast.square() + CLOSE)
        gain = (slope * ((ink + ground) / 2 - grey)).clamp(-0.5, 0.5)
        return gain * (STRENGTH * share / (share + LITTLE))
