"""What only a person can say of a network of others, and names with colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from ppool.feeding import Normalisation
from ppool.metadata import HeadKind, InputPolicy, LabelClass, Resample

__all__ = ["Adoption", "with_colours"]


@dataclass(frozen=True)
class Adoption:
    """What only a person can say of a network exported by others.

    Attributes:
        classes: Names in the order of the channels or labels; of a network with a threshold, the
            foreground's, or the background's and the foreground's. Empty numbers them.
        normalisation: What becomes of pixels before the network.
        name: What the model is served as; ``None`` is the new file's name without suffix.
        size: Resize every image to this (height, width); ``None`` follows the network, which may
            take one size only, or else ``max_side`` and ``multiple``.
        pad: Keep the proportions of images in ``size``, and fill up with this red, green and blue.
        max_side: Longer images are to be resized to this many pixels.
        min_side: The shorter side of every image is to be resized to this many pixels.
        multiple: Heights and widths are to be padded to multiples of this many pixels.
        rounds: Or to be rounded to them, beside ``min_side``: see :class:`InputPolicy`.
        resample: How photos are to be resized.
        output: Which output is meant; ``None`` is the only one.
        head: What becomes of the output; ``None`` is found out by trying.
        threshold: Above which a pixel of a one-channel network is foreground; ``None`` is 0.5 of
            probabilities and 0 of logits.
    """

    classes: Sequence[str]
    normalisation: Normalisation
    name: str | None = None
    size: tuple[int, int] | None = None
    pad: tuple[int, int, int] | None = None
    max_side: int = 1024
    min_side: int | None = None
    multiple: int = 32
    rounds: bool = False
    resample: Resample = "bilinear"
    output: str | None = None
    head: HeadKind | None = None
    threshold: float | None = None

    def policy(self, height: int | None, width: int | None) -> InputPolicy:
        """For a network that takes this height and width only, or any, where ``None``.

        Raises:
            ValueError: if another size is asked for.
        """
        if height is None or width is None:
            if self.size is not None:
                return InputPolicy.fixed(*self.size, self.pad, self.resample)
            return InputPolicy(
                self.max_side,
                self.multiple,
                min_side=self.min_side,
                resample=self.resample,
                rounds=self.rounds and self.min_side is not None,
            )
        if self.size not in (None, (height, width)):
            raise ValueError(
                f"--size: expected {height}x{width}, all that this network takes, got "
                f"{self.size[0]}x{self.size[1]}"
            )
        return InputPolicy.fixed(height, width, self.pad, self.resample)


def with_colours(classes: Sequence[str | LabelClass]) -> tuple[LabelClass, ...]:
    """Plain names get hues a golden-angle step apart: any two neighbours differ well.

    A first class that is called background is black.
    """

    def colour(index: int, name: str) -> str:
        if not index and name.lower() == "background":
            return "#000000"
        rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.65, 0.95 - 0.25 * (index % 3))
        return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)

    return tuple(
        LabelClass(index, entry, colour(index, entry)) if isinstance(entry, str) else entry
        for index, entry in enumerate(classes)
    )
