"""The seven things a page photograph is made of, and the number each has in the mask."""

from __future__ import annotations

from ppool.metadata import LabelClass

__all__ = ["DESK", "HANDWRITING", "LINE", "PAGE_CLASSES", "PAPER", "PICTURE", "STAMP", "TEXT"]

DESK, PAPER, TEXT, HANDWRITING, LINE, STAMP, PICTURE = range(7)

# Hues of Okabe and Ito, "Color Universal Design", distinct under colour-vision deficiency.
PAGE_CLASSES = (
    LabelClass(DESK, "desk", "#3d3d42"),
    LabelClass(PAPER, "paper", "#f5f2ea"),
    LabelClass(TEXT, "text", "#0072b2"),
    LabelClass(HANDWRITING, "handwriting", "#d55e00"),
    LabelClass(LINE, "line", "#009e73"),
    LabelClass(STAMP, "stamp", "#cc79a7"),
    LabelClass(PICTURE, "picture", "#56b4e9"),
)
