"""The JSON documents of what was found in photos; the OpenAPI page shows them as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = [
    "AlphaMap",
    "ClassArea",
    "Component",
    "Described",
    "Feature",
    "FeatureCollection",
    "FeatureProperties",
    "Geometry",
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
class Component(Described):
    """Pixels of a class that touch each other along edges."""

    id: int
    """Of the class."""
    name: str
    area: int
    """In pixels."""
    bbox: tuple[int, int, int, int]
    """Left, top, width and height in pixels, as COCO has it."""


@dataclass(frozen=True)
class Geometry(Described):
    """A polygon, as RFC 7946 has it, in pixels: x to the right and y down from the upper left."""

    type: Literal["Polygon"]
    coordinates: list[list[tuple[float, float]]]
    """Rings, each closed: first the outer one, then holes."""


@dataclass(frozen=True)
class FeatureProperties(Described):
    """What a region is."""

    id: int
    """Of the class."""
    name: str
    color: str
    """As #rrggbb."""
    area: int
    """In pixels, of the mask, before edges were simplified."""


@dataclass(frozen=True)
class Feature(Described):
    """A region: pixels of a class that touch each other along edges."""

    type: Literal["Feature"]
    bbox: tuple[float, float, float, float]
    """Left, top, right, bottom, of the mask."""
    geometry: Geometry
    properties: FeatureProperties


@dataclass(frozen=True)
class FeatureCollection(Described):
    """The regions of a mask, by class."""

    type: Literal["FeatureCollection"]
    features: list[Feature]


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
    """Null unless planes=, or regions of classes that overlap were asked for."""
    components: list[Component] | None = None
    """Null unless answers=components; by class, from top to bottom."""
    polygons: FeatureCollection | None = None
    """Null unless answers=polygons, or in a ZIP, where it is a file."""


@dataclass(frozen=True)
class SegmentReply(Described):
    """One result for each image, in the order sent."""

    images: list[ImageResult]
