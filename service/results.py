"""The JSON documents of what was found in photos; the OpenAPI page shows them as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = [
    "AlphaMap",
    "ClassArea",
    "Described",
    "ImageResult",
    "Milliseconds",
    "Plane",
    "PngMask",
    "ProbabilityMap",
    "RleMask",
    "SegmentReply",
]


class Described:
    """A document whose fields are described."""

    # Workers send these and never load pydantic, so what it should know is in docstrings.
    __pydantic_config__: ClassVar[dict[str, bool]] = {"use_attribute_docstrings": True}


@dataclass(frozen=True)
class ClassArea(Described):
    """A class that is present in the mask."""

    id: int
    name: str
    color: str
    """As #rrggbb."""
    pixels: int
    fraction: float
    """Of the photo, 0 to 1."""


@dataclass(frozen=True)
class PngMask(Described):
    """The mask as a PNG, pixel = class id: with a palette, or grey in 16 bits of over 256 classes.

    Of a plane, grey in 8 bits: 255 is the class, 0 is not.
    """

    encoding: Literal["png"]
    data: str
    """Base64 of the file."""


@dataclass(frozen=True)
class RleMask(Described):
    """The mask as COCO run lengths: ``counts`` by class id, to be decoded with ``size``."""

    encoding: Literal["coco_rle"]
    size: tuple[int, int]
    """Height, width."""
    counts: dict[str, str]
    """Compressed run lengths by class id."""


@dataclass(frozen=True)
class AlphaMap(Described):
    """The learned exponents of one pooling stage (Wei et al., CVPR 2019, Figure 6)."""

    stage: str
    shape: tuple[int, int, int]
    """Channels, height, width."""
    min: float
    max: float
    mean: float
    channel_mean: list[float]
    """Mean over the plane, by channel."""
    map: str
    """Base64 grey PNG of the mean over channels, map_min black, map_max white."""
    map_min: float
    map_max: float


@dataclass(frozen=True)
class ProbabilityMap(Described):
    """How probable a class is at each pixel, as a grey PNG: black is 0, white is 1."""

    id: int | None
    """Of the class; null for the one that the mask has at each pixel."""
    name: str | None
    mean: float
    data: str | None
    """Base64 of the file, of 8 or 16 bits; null in a ZIP, where it is a file."""


@dataclass(frozen=True)
class Plane(Described):
    """Where a class is, whatever others are there."""

    id: int
    name: str
    color: str
    """As #rrggbb."""
    pixels: int
    fraction: float
    """Of the photo, 0 to 1."""
    mask: PngMask | RleMask | None
    """Null in a ZIP, where it is a file."""


@dataclass(frozen=True)
class Milliseconds(Described):
    """Wall time of each stage."""

    decode: float
    queue: float
    infer: float
    encode: float


@dataclass(frozen=True)
class ImageResult(Described):
    """What was found in one photo."""

    name: str
    """File name of the part, or 'image'."""
    width: int
    """Pixels, after EXIF orientation."""
    height: int
    """Pixels, after EXIF orientation."""
    pages: int
    """Pages or frames of the file, of which page= names one."""
    model: str
    classes: list[ClassArea]
    """Present in the mask, by id."""
    mask: PngMask | RleMask | None
    """Null in a ZIP, where it is a file."""
    alpha: list[AlphaMap] | None
    """Null unless alpha=maps."""
    timing_ms: Milliseconds
    probability: list[ProbabilityMap] | None = None
    """Null unless probability=."""
    planes: list[Plane] | None = None
    """Null unless planes=."""


@dataclass(frozen=True)
class SegmentReply(Described):
    """One result for each image, in the order sent."""

    images: list[ImageResult]
