"""Seeded choices, in the words a generator thinks in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

__all__ = ["Color", "Rng"]

T = TypeVar("T")
Color = tuple[int, int, int]


class Rng(np.random.Generator):
    """NumPy's generator, with choices in the words of who draws."""

    def __init__(self, seed: int | Sequence[int]) -> None:
        super().__init__(np.random.PCG64(seed))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self.random() < probability)

    def between(self, low: float, high: float) -> float:
        """A real number, uniform in [low, high)."""
        return float(self.uniform(low, high))

    def log_between(self, low: float, high: float) -> float:
        """A positive number whose logarithm is uniform: small ones as often as large ones."""
        return float(np.exp(self.uniform(np.log(low), np.log(high))))

    def whole(self, low: int, high: int) -> int:
        """An integer, uniform from low to high, both included."""
        return int(self.integers(low, high + 1))

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[int(self.integers(len(items)))]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, as likely as its weight."""
        shares = np.fromiter(weights.values(), float)
        return list(weights)[int(self.choice(len(shares), p=shares / shares.sum()))]

    def color(self, low: int, high: int) -> Color:
        """A colour with each of its three bytes between low and high."""
        red, green, blue = self.integers(low, high + 1, 3)
        return int(red), int(green), int(blue)

    def tint(self, color: Color, spread: float) -> Color:
        """The colour, each byte moved by a normal step of the given spread."""
        moved = np.clip(np.asarray(color) + self.normal(0, spread, 3), 0, 255)
        return int(moved[0]), int(moved[1]), int(moved[2])
