"""How a network is fed a photo, and how its mask comes back to the photo's pixels.

The service, ``ppool-train`` and ``ppool-export`` all go by this, so that what one of them measures
is what another answers. Photos are resized by :mod:`ppool.service.codecs`, which has the libraries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import InputPolicy

__all__ = [
    "LUMA",
    "PRESETS",
    "Channels",
    "Feed",
    "Normalisation",
    "feed",
    "resized_labels",
]


Channels = Literal["rgb", "bgr", "grey"]

# ITU-R BT.601 in 65536ths, as Pillow and libjpeg have it: sums are exact in float32.
LUMA = np.array([19595, 38470, 7471], np.float32)


@dataclass(frozen=True)
class Normalisation:
    """A network is fed (value - mean) / std.

    Attributes:
        mean: Of the channels in the network's order; one number stands for all of them.
        std: Likewise.
        channels: The network's order; ``grey`` is the luma of ITU-R BT.601 in whole numbers.
        scale: The white that ``mean`` and ``std`` are of, 1 or 255; ``None`` is 255 if any of them
            exceeds 1.
    """

    mean: Sequence[float]
    std: Sequence[float]
    channels: Channels = "rgb"
    scale: Literal[1, 255] | None = None

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {1, self.count}:
                wanted = f"{self.count} values, or one for all" if self.count > 1 else "one value"
                raise ValueError(f"{name}: expected {wanted} ({self.channels}), got {values!r}")
        if not all(0 <= value <= self.white for value in self.mean):
            raise ValueError(f"mean: expected values in [0, {self.white}], got {self.mean!r}")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std: expected positive values, got {self.std!r}")
        if self.scale is None and max(self.mean) > 1 > max(self.std):
            raise ValueError(
                f"mean, std: expected both of values in [0, 1] or both of values in [0, 255], got "
                f"{self.mean!r} and {self.std!r}; multiply or divide one by 255"
            )

    @property
    def count(self) -> int:
        """How many channels the network is fed."""
        return 1 if self.channels == "grey" else 3

    @property
    def white(self) -> Literal[1, 255]:
        """The value of white that ``mean`` and ``std`` are of."""
        return self.scale or (255 if max(*self.mean, *self.std) > 1 else 1)

    @property
    def of_bytes(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of values in [0, 255], one for each channel."""
        mean, std = (
            [value * 255 / self.white for value in values] * (self.count // len(values))
            for values in (self.mean, self.std)
        )
        return mean, std

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Uint8 RGB, [N, H, W, 3], to what the network is fed, float32 [N, C, H, W]."""
        mean, std = (np.reshape(row, (-1, 1, 1)).astype(np.float32) for row in self.of_bytes)
        if self.channels == "grey":
            luma = images.astype(np.float32) @ LUMA[:, None]
            x = np.floor(luma / 65536 + 0.5).transpose(0, 3, 1, 2)
        else:
            ordered = images[..., ::-1] if self.channels == "bgr" else images
            x = ordered.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        x -= mean
        x /= std
        return x

    def __str__(self) -> str:
        mean, std = (", ".join(f"{part:g}" for part in part) for part in (self.mean, self.std))
        return f"{self.channels.upper()} in [0, {self.white}], mean {mean}, std {std}"


PRESETS = {
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": Normalisation((103.939, 116.779, 123.68), (1,), "bgr", 255),
    "tf": Normalisation((0.5,), (0.5,), scale=1),
    "raw": Normalisation((0,), (1,), scale=255),
}


@dataclass(frozen=True)
class Feed:
    """A photo as the network takes it.

    Attributes:
        image: RGB, uint8 [H, W, 3], padded.
        content: How many rows and columns of it are the photo; the rest is padding.
        photo: Height and width of the photo itself, upright.
    """

    image: NDArray[np.uint8]
    content: tuple[int, int]
    photo: tuple[int, int]

    def cropped(self, values: NDArray[Any], stride: int = 1) -> NDArray[Any]:
        """What of [..., H / stride, W / stride] belongs to the photo."""
        height, width = (_ceil_div(side, stride) for side in self.content)
        return values[..., :height, :width]

    @property
    def whole(self) -> tuple[int, int]:
        """Height and width of ``image``, padding included, in the photo's own pixels."""
        height, width = (
            round(side * own / content)
            for side, own, content in zip(self.image.shape, self.photo, self.content, strict=False)
        )
        return height, width

    def of_photo(self, labels: NDArray[Any]) -> NDArray[Any]:
        """What of labels, as high and wide as ``image`` or as ``whole``, belongs to the photo."""
        if labels.shape == self.image.shape[:2]:
            return self.cropped(labels)
        height, width = self.photo
        return labels[:height, :width]

    def mask(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Labels, as high and wide as ``image`` or as ``whole``, of the photo's own pixels."""
        return resized_labels(self.of_photo(labels), *self.photo)


def feed(image: NDArray[np.uint8], policy: InputPolicy, photo: tuple[int, int]) -> Feed:
    """Repeat the last row and column of ``image`` until both sides stand on a rung.

    Where the policy has a colour to fill up with, that is repeated.

    Args:
        image: The photo, uint8 [h, w, 3], of the size that ``policy.reduced`` says.
        policy: Of the network.
        photo: Height and width that the photo had before.
    """
    height, width = content = image.shape[:2]
    shape = policy.padded_shape(height, width)
    if shape == content:
        return Feed(image, content, photo)
    padded = np.empty((*shape, 3), np.uint8)
    padded[:height, :width] = image
    padded[:height, width:] = image[:, -1:] if policy.pad is None else policy.pad
    padded[height:] = padded[height - 1] if policy.pad is None else policy.pad
    return Feed(padded, content, photo)


def resized_labels(labels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Labels, [h, w], at another size; each pixel takes the one nearest to its centre.

    Example:
        >>> resized_labels(np.array([[1, 2, 3]]), 1, 6)
        array([[1, 1, 2, 2, 3, 3]])
    """
    # Columns first: rows are copied whole, which is quicker, and there are more of them then.
    for axis, wanted in ((1, width), (0, height)):
        had = labels.shape[axis]
        if had != wanted:
            labels = labels.take((2 * np.arange(wanted) + 1) * had // (2 * wanted), axis)
    return labels


def _ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)
