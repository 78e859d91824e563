"""Ink on a page: its border is where a pixel is nearly half as dark as the ink around it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from ppool.export._behind import FINE, NONE, SHARPENED, STRIDE, Part, Sight

__all__ = ["Ink"]

# From a pixel as dark as the ink to one as light as the ground.
STRENGTH = 7.0
# Greys of ink and ground that are closer than the root of this tell little.
CLOSE = 0.01
# Where less than this share is ink, as in photographs, it tells little.
LITTLE = 0.01
# How far from ink to ground a label ends: people who mark ink on photos mark what is two fifths
# ink; what is rendered has the share of ink in its greys.
MARKED, RENDERED_ENDS = 0.6, 0.5
# Where more than this share of a page is one grey with its neighbours it was rendered, to the
# pixel, and where as many more, surely.
RENDERED, SURELY = 0.5, 0.25
# Two greys are one if they are no further apart.
SAME = 0.5 / 255
# Strokes that have less than this share of the darkest ones' darkness may be the other side's ink,
# with so much less, surely.
LIGHTER, MUCH_LIGHTER = 0.65, 0.15
# If their edges lack this share of those strokes' steepness, for their darkness, they lose so much.
SOFTER, SOFT = 0.2, 3.0
# If the network is less sure of them than this share of the surest, and by so much less, so much.
FAINTER, MUCH_FAINTER, FAINT = 0.5, 0.2, 6.0
# Fine rows and columns of a cell, of which strokes are told, and cells where a stroke is surest.
CELL, WIDE = 2, 7
# Rows and columns looked at of an area, and areas that are a neighbourhood: 96 pixels.
AREA, AREAS = 4, 3
# What the page weighs in its greys, of a neighbourhood all of ink, or of ground.
ELSEWHERE = 0.01
# The least contrast of ink, and weight of what is found.
LEAST, NOTHING = 1e-3, 1e-6
_STEP = STRIDE // FINE
_STEPS = [[[[1.0, -1.0], [0.0, 0.0]]], [[[1.0, 0.0], [-1.0, 0.0]]]]
# Rows and columns within which a rendered pixel is compared with the core of its stroke, how much
# what it lacks of half as dark tells, and the most that it tells.
CORE, RIM, MOST = 7, 200.0, 6.0


class Ink(Part):
    """Moves the logits of ink by how dark a pixel is beside the ink and the ground around it.

    A network sees strokes of all ages and knows no page's own: faint ink comes out too thin, dark
    ink too fat. Once it has said roughly where ink is, the mean grey of that and of the rest give
    the level between them, and a pixel darker than that gains, one as dark as the ink by half of
    ``STRENGTH``, the most; of light ink on dark ground a lighter one. These are two steps of
    k-means, started by the network and held by it where the two do not come apart: the first with
    the greys of the page, the second with those of the pixel's neighbourhood.

    Ink of the other side of the sheet is no ink, and left out between the two. It is lighter than
    this side's, its edges are softer, having come through paper, and the network is less sure of
    it. Strokes much lighter than the page's darkest lose by what they have of the other two.

    People who mark ink on photos mark what is two fifths ink. A rendered page, without noise, has
    the share of ink in its greys, so there a pixel loses that is not half as dark as its stroke.

    Args:
        ids: Of the classes that are ink.
        classes: How many there are.
    """

    def __init__(self, ids: Sequence[int], classes: int) -> None:
        super().__init__([ids], classes)
        self.rest = [index for index in range(classes) if index not in self.ids]

    def forward(self, seen: Sight) -> Tensor:
        """How far, [N, 1, H, W], the logits of ink move."""
        found, some = seen.believed(self.ids), seen.fine[..., ::_STEP, ::_STEP]
        share, whole = _mean(found), _mean(some)
        part = _mean(found * some)
        ink = (part + NONE * whole) / (share + NONE)
        ground = (whole - part + NONE * whole) / (1 - share + NONE)
        side = (ground - ink).sign()
        strength = STRENGTH * share / (share + LITTLE)
        steps = F.conv2d(seen.grey, seen.grey.new_tensor(_STEPS), stride=FINE).abs()
        same = steps[..., ::_STEP, ::_STEP].sum(1, keepdim=True) < SAME
        rendered = ((_mean(same.to(steps.dtype)) - RENDERED) / SURELY).clamp(0.0, 1.0)

        margin = self._margin(seen.logits) + strength * _gain(seen.fine, *_border(ink, ground, 0.5))
        lost = _other_side(margin, side * (ground - seen.fine), steps.amax(1, keepdim=True), found)
        kept = margin[..., ::_STEP, ::_STEP] - lost[..., ::CELL, ::CELL]
        near = _around((SHARPENED * kept).sigmoid(), some, ink, ground)
        ends = MARKED + (RENDERED_ENDS - MARKED) * rendered
        border = torch.cat(_border(*_apart(*near, side), ends), 1)
        size = seen.grey.shape[-2:]
        border = F.interpolate(border, size, mode="bilinear", align_corners=False)
        told = strength * _gain(seen.grey, border[:, :1], border[:, 1:])
        lost = F.interpolate(lost, size, mode="nearest")
        return told - lost - rendered * _rims(seen.grey, ground)

    def _margin(self, logits: Tensor) -> Tensor:
        """By how much the likeliest ink is likelier than the likeliest of the rest."""
        ink, rest = (
            reduce(torch.maximum, [logits[:, index : index + 1] for index in ids])
            for ids in (self.ids, self.rest)
        )
        return ink - rest


def _mean(values: Tensor) -> Tensor:
    return values.mean((2, 3), keepdim=True)


def _border(ink: Tensor, ground: Tensor, ends: Tensor | float) -> tuple[Tensor, Tensor]:
    """A slope, and that times the grey so far from ink to ground at which ink ends."""
    contrast = ground - ink
    slope = contrast / (contrast.square() + CLOSE)
    return slope, slope * (ink + ends * contrast)


def _gain(grey: Tensor, slope: Tensor, there: Tensor) -> Tensor:
    """From half for what is surely ink to minus half for what is surely ground."""
    return (there - slope * grey).clamp(-0.5, 0.5)


def _apart(ink: Tensor, ground: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """Both, where ink would not be on its side of the ground as little apart as can be."""
    return ink, ink + side * (side * (ground - ink)).clamp(min=LEAST)


def _around(found: Tensor, some: Tensor, ink: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """The greys of ink and of ground of neighbourhoods, by what was found at some pixels."""
    values = torch.cat((found, found * some, some), 1)
    areas = F.avg_pool2d(values, AREA, AREA, ceil_mode=True)
    areas = F.avg_pool2d(areas, AREAS, 1, AREAS // 2, count_include_pad=False)
    share, part, whole = (areas[:, index : index + 1] for index in range(3))
    return (
        (part + ELSEWHERE * ink) / (share + ELSEWHERE),
        (whole - part + ELSEWHERE * ground) / (1 - share + ELSEWHERE),
    )


def _other_side(margin: Tensor, dark: Tensor, steps: Tensor, found: Tensor) -> Tensor:
    """How much less likely cells are ink, [N, 1, h, w], as their stroke may be the other side's.

    Args:
        margin: Of ink over the rest, of fine pixels.
        dark: How much darker than the ground they are.
        steps: To the next pixel.
        found: How likely ink is.
    """
    margin, dark, steps = (
        F.max_pool2d(values, CELL, CELL, ceil_mode=True) for values in (margin, dark, steps)
    )
    # A cell has its stroke's: how dark that is at its core, how steep at its edge, how surely ink.
    core = F.max_pool2d(dark, 3, 1, 1).clamp(min=NONE)
    steep = F.max_pool2d(steps, 3, 1, 1) / core
    sure = F.max_pool2d(margin, (WIDE, 1), 1, (WIDE // 2, 0))
    sure = F.max_pool2d(sure, (1, WIDE), 1, (0, WIDE // 2)).clamp(min=0.0)
    some = core[..., ::CELL, ::CELL]
    # The darkest strokes, and the surest, tell what this side's ink is like.
    weight = found * some.square()
    lighter = ((LIGHTER - core / _typical(some, weight)) / MUCH_LIGHTER).clamp(0.0, 1.0)
    softer = ((1 - steep / _typical(steep[..., ::CELL, ::CELL], weight)) / SOFTER).clamp(0.0, 1.0)
    some = sure[..., ::CELL, ::CELL]
    likely = sure / _typical(some, found * some.square())
    fainter = ((FAINTER - likely) / MUCH_FAINTER).clamp(0.0, 1.0)
    return lighter * (SOFT * softer + FAINT * fainter)


def _typical(values: Tensor, weight: Tensor) -> Tensor:
    # No sum: what is added is dropped on export if it is as little.
    return _mean(weight * values) / _mean(weight).clamp(min=NOTHING) + NONE


def _rims(grey: Tensor, ground: Tensor) -> Tensor:
    """How much less likely a pixel of a rendered page is ink, [N, 1, H, W]."""
    dark = (grey - ground).abs()
    core = F.max_pool2d(dark, (CORE, 1), 1, (CORE // 2, 0))
    core = F.max_pool2d(core, (1, CORE), 1, (0, CORE // 2))
    return (RIM * (core / 2 - dark) / (core + NONE)).clamp(0.0, MOST)
