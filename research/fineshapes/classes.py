"""The ten things a scene is made of, and the number each has in the mask."""

from __future__ import annotations

from ppool.metadata import LabelClass

__all__ = [
    "BACKGROUND",
    "BLOCK",
    "BODY",
    "CABLE",
    "DETAIL_CLASSES",
    "FINE_SHAPES_CLASSES",
    "GROUND",
    "LATTICE",
    "POLE",
    "TABLE",
    "TWIG",
    "WHEEL",
]

BACKGROUND, GROUND, BLOCK, BODY, POLE, CABLE, WHEEL, LATTICE, TABLE, TWIG = range(10)

# Hues of Okabe and Ito, "Color Universal Design", for what is thin; greys and pales for the rest.
FINE_SHAPES_CLASSES = (
    LabelClass(BACKGROUND, "background", "#c9d6e2"),  # sky or wall
    LabelClass(GROUND, "ground", "#6b6b70"),  # road or floor
    LabelClass(BLOCK, "block", "#b59f86"),  # building or cupboard
    LabelClass(BODY, "body", "#3d4a6b"),  # car or sofa, without wheels
    LabelClass(POLE, "pole", "#e69f00"),  # post, lamp
    LabelClass(CABLE, "cable", "#d55e00"),
    LabelClass(WHEEL, "wheel", "#0072b2"),  # rim, spokes and hub, not what is seen through it
    LabelClass(LATTICE, "lattice", "#cc79a7"),  # fence, grille, shelf
    LabelClass(TABLE, "table", "#f0e442"),  # tables and chairs on thin legs
    LabelClass(TWIG, "twig", "#009e73"),  # branches and their leaves
)
DETAIL_CLASSES = (POLE, CABLE, WHEEL, LATTICE, TABLE, TWIG)
