"""Ink on a page: its border is where a pixel is half as dark as the ink of that page."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ppool.export._behind import FINE, NONE, STRIDE, WHITE, Part, Sight

__all__ = ["Ink"]

# From a pixel as dark as the ink to one as light as the ground.
STRENGTH = 7.0
# Greys of ink and ground that are closer than the root of this tell little.
CLOSE = 0.01
# Where less than this share is ink, as in photographs, it tells little.
LITTLE = 0.01
# Where more than this share of a page is one grey with its neighbours it was rendered, to the
# pixel, and where as many more, surely.
RENDERED, SURELY = 0.5, 0.25
# Two greys are one if they are no further apart.
SAME = 0.5 / 255
# Strokes that have less than this share of the darkest ones' darkness, and edges that lack this
# share of theirs in steepness, may be the other side's ink, and lose so much at most.
LIGHTER, SOFTER, THROUGH = 0.6, 0.2, 3.0
_STEPS = [[[[1.0, -1.0], [0.0, 0.0]]], [[[1.0, 0.0], [-1.0, 0.0]]]]
# Rows and columns within which a rendered pixel is compared with the core of its stroke, how much
# what it lacks of half as dark tells, and the most that it tells.
CORE, RIM, MOST = 7, 200.0, 6.0


class Ink(Part):
    """Moves the logits of ink by how dark a pixel is beside the ink and the ground of its page.

    A network sees strokes of all ages and knows no page's own: faint ink comes out too thin, dark
    ink too fat. Once it has said roughly where ink is, the mean grey of that and of the rest give
    the level between them, and a pixel darker than that gains, one as dark as the ink by half of
    ``STRENGTH``, the most; of light ink on dark ground a lighter one. It is one step of k-means,
    started by the network and held by it where the two do not come apart.

    Ink of the other side of the sheet is no ink: lighter than this side's and softer, having come
    through paper. Of strokes much lighter than the page's darkest those that are softer, too, lose.

    People who mark ink on photos mark what is a third ink. A rendered page, without noise, has the
    share of ink in its greys, so there a pixel loses that is not half as dark as its stroke.

    Args:
        ids: Of the classes that are ink.
        classes: How many there are.
    """

    def __init__(self, ids: Sequence[int], classes: int) -> None:
        super().__init__([ids], classes)

    def forward(self, seen: Sight) -> Tensor:
        """How far, [N, 1, H, W], the logits of ink move."""
        grey = seen.grey * (1 / WHITE)
        some = grey[..., ::STRIDE, ::STRIDE]
        found = seen.beliefs[:, self.ids].sum(1, keepdim=True)
        share, whole = found.mean((2, 3), keepdim=True), some.mean((2, 3), keepdim=True)
        part = (found * some).mean((2, 3), keepdim=True)
        ink = (part + NONE * whole) / (share + NONE)
        ground = (whole - part + NONE * whole) / (1 - share + NONE)
        contrast = ground - ink
        slope = contrast / (contrast.square() + CLOSE)
        gain = (slope * ((ink + ground) / 2 - grey)).clamp(-0.5, 0.5)
        told = gain * (STRENGTH * share / (share + LITTLE))
        return told - _through(grey, found, ground, contrast.sign()) - _rims(grey, ground)


def _through(grey: Tensor, found: Tensor, ground: Tensor, side: Tensor) -> Tensor:
    """How much less likely a pixel is ink, [N, 1, H, W], as its stroke may be the other side's."""
    dark = side * (ground - grey[..., ::FINE, ::FINE])
    # A pixel has its stroke's: how dark that is at its core, how steep at its edge.
    core = F.max_pool2d(dark, 3, 1, 1).clamp(min=NONE)
    steps = F.conv2d(grey, grey.new_tensor(_STEPS), stride=FINE).abs().amax(1, keepdim=True)
    steep = F.max_pool2d(steps, 3, 1, 1) / core
    step = STRIDE // FINE
    some, slope = core[..., ::step, ::step], steep[..., ::step, ::step]
    # The darkest strokes tell what this side's ink is like.
    weight = found * some.square()
    whole = weight.mean((2, 3), keepdim=True) + NONE * NONE
    darkest = (weight * some).mean((2, 3), keepdim=True) / whole + NONE
    steepest = (weight * slope).mean((2, 3), keepdim=True) / whole + NONE
    lighter = ((LIGHTER - core / darkest) / (LIGHTER / 4)).clamp(0.0, 1.0)
    softer = ((1 - steep / steepest) / SOFTER).clamp(0.0, 1.0)
    lost = (THROUGH * lighter) * softer
    return F.interpolate(lost, scale_factor=float(FINE), mode="nearest")


def _rims(grey: Tensor, ground: Tensor) -> Tensor:
    """How much less likely a pixel of a rendered page is ink, [N, 1, H, W]; 0 on others."""
    steps = F.conv2d(grey, grey.new_tensor(_STEPS), stride=STRIDE)
    same = (steps.abs().sum(1, keepdim=True) < SAME).to(grey.dtype)
    rendered = ((same.mean((2, 3), keepdim=True) - RENDERED) / SURELY).clamp(0.0, 1.0)
    dark = (grey - ground).abs()
    core = F.max_pool2d(dark, (CORE, 1), 1, (CORE // 2, 0))
    core = F.max_pool2d(core, (1, CORE), 1, (0, CORE // 2))
    return rendered * (RIM * (core / 2 - dark) / (core + NONE)).clamp(0.0, MOST)
