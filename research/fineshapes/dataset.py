"""FineShapes as data sets: scenes to segment and things to classify, drawn when asked for."""

from __future__ import annotations

from ppool.training.dataset import Sample
from research.fields import Image
from research.fineshapes.classes import FINE_SHAPES_CLASSES
from research.fineshapes.scene import draw_object, draw_scene

__all__ = ["FineShapes", "FineShapesObjects"]


class FineShapes:
    """``count`` scenes, item i drawn from seed ``seed + i``.

    Args:
        count: scenes.
        seed: seed of the first.
        height: rows.
        width: columns.

    Raises:
        ValueError: if ``count`` is less than 1.
    """

    classes = FINE_SHAPES_CLASSES

    def __init__(self, count: int, *, seed: int, height: int, width: int) -> None:
        self._seeds = _seeds(count, seed)
        self.height = height
        self.width = width

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: int) -> Sample:
        return draw_scene(self._seeds[index], self.height, self.width)


class FineShapesObjects:
    """``count`` single things with their class ids, item i drawn from seed ``seed + i``.

    Args:
        count: images.
        seed: seed of the first.
        size: rows and columns.

    Raises:
        ValueError: if ``count`` is less than 1.
    """

    classes = FINE_SHAPES_CLASSES

    def __init__(self, count: int, *, seed: int, size: int) -> None:
        self._seeds = _seeds(count, seed)
        self.size = size

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        return draw_object(self._seeds[index], self.size)


def _seeds(count: int, seed: int) -> range:
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count!r}")
    return range(seed, seed + count)
