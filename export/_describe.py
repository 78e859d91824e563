"""What only a person can say of a network: its classes and how its images were normalised."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ppool.metadata import LabelClass

__all__ = ["Normalisation", "with_colours"]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of RGB in [0, 1], as the network was trained with."""

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"{name}: expected three values (RGB), got {values!r}")
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(
                f"mean: expected values of RGB in [0, 1], got {self.mean!r}; divide mean and std "
                "by 255 if they are of RGB in [0, 255]"
            )
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std: expected positive values, got {self.std!r}")


def with_colours(classes: Sequence[str | LabelClass]) -> tuple[LabelClass, ...]:
    """Plain names get hues a golden-angle step apart: any two neighbours differ well."""

    def colour(index: int) -> str:
        rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.65, 0.95 - 0.25 * (index % 3))
        return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)

    return tuple(
        LabelClass(index, entry, colour(index)) if isinstance(entry, str) else entry
        for index, entry in enumerate(classes)
    )
