"""The classes of a network as a person names them, with colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from ppool.metadata import LabelClass

__all__ = ["with_colours"]


def with_colours(classes: Sequence[str | LabelClass]) -> tuple[LabelClass, ...]:
    """Plain names get hues a golden-angle step apart: any two neighbours differ well."""

    def colour(index: int) -> str:
        rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.65, 0.95 - 0.25 * (index % 3))
        return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)

    return tuple(
        LabelClass(index, entry, colour(index)) if isinstance(entry, str) else entry
        for index, entry in enumerate(classes)
    )
