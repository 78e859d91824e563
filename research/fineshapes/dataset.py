"""FineShapes as data sets: scenes to segment and things to classify, drawn when asked for."""

from __future__ import annotations

import numpy as np

from ppool.training.dataset import Sample
from ppool.training.identity import digest_of
from research.fields import Image
from research.fineshapes.classes import FINE_SHAPES_CLASSES
from research.fineshapes.scene import draw_object, draw_scene

__all__ = ["FineShapes", "FineShapesObjects", "ObjectsAsScenes"]


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

    @property
    def identity(self) -> str:
        """Seeds and size, and what the first scene looks like, should the drawing ever change."""
        first = self[0]
        return f"scenes {self._seeds} {self.height}x{self.width} {_digest(first.image, first.mask)}"

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
        self.seeds = _seeds(count, seed)
        self.size = size

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        return draw_object(self.seeds[index], self.size)


class ObjectsAsScenes:
    """Single things as samples whose every pixel has their label, to train a classifier on.

    Args:
        objects: the things.
    """

    classes = FINE_SHAPES_CLASSES

    def __init__(self, objects: FineShapesObjects) -> None:
        self._objects = objects

    @property
    def identity(self) -> str:
        """As of :class:`FineShapes`."""
        image, label = self._objects[0]
        return f"objects {self._objects.seeds} {self._objects.size} {label} {_digest(image)}"

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> Sample:
        image, label = self._objects[index]
        return Sample(image, np.full(image.shape[:2], label, np.uint8))


def _digest(*images: Image) -> str:
    return digest_of(image.tobytes() for image in images)


def _seeds(count: int, seed: int) -> range:
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count!r}")
    return range(seed, seed + count)
