"""Drawn photographs of document pages with exact labels, to train a page segmenter on.

No labelled pages are needed: type, handwriting, rules, stamps and pictures are drawn together with
their masks, warped together, and then only the colours pass through light, lens and sensor.
"""

from research.pages.classes import PAGE_CLASSES
from research.pages.dataset import PageDataset, write_dataset
from research.pages.draw import draw_page
from research.pages.fonts import FontLibrary

__all__ = ["PAGE_CLASSES", "FontLibrary", "PageDataset", "draw_page", "write_dataset"]
