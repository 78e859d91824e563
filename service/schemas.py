"""The JSON documents of the service: what is sent, and what the OpenAPI page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

__all__ = [
    "AlphaMap",
    "ClassArea",
    "Health",
    "ImageResult",
    "Milliseconds",
    "ModelInfo",
    "PngMask",
    "Problem",
    "RleMask",
    "SegmentReply",
]


@dataclass(frozen=True)
class ClassArea:
    """A class that is present in the mask."""

    id: int
    name: str
    color: Annotated[str, Field(description="as #rrggbb")]
    pixels: int
    fraction: Annotated[float, Field(description="of the photo, 0 to 1")]


@dataclass(frozen=True)
class PngMask:
    """The mask as a palette PNG: pixel = class id."""

    encoding: Literal["png"]
    data: Annotated[str, Field(description="base64")]


@dataclass(frozen=True)
class RleMask:
    """The mask as COCO run lengths: ``counts`` by class id, to be decoded with ``size``."""

    encoding: Literal["coco_rle"]
    size: Annotated[tuple[int, int], Field(description="height, width")]
    counts: Annotated[dict[str, str], Field(description="compressed run lengths by class id")]


@dataclass(frozen=True)
class AlphaMap:
    """The learned exponents of one pooling stage (Wei et al., CVPR 2019, Figure 6)."""

    stage: str
    shape: Annotated[tuple[int, int, int], Field(description="channels, height, width")]
    min: float
    max: float
    mean: float
    channel_mean: Annotated[list[float], Field(description="mean over the plane, by channel")]
    map: Annotated[
        str,
        Field(
            description="base64 grey PNG of the mean over channels, map_min black, map_max white"
        ),
    ]
    map_min: float
    map_max: float


@dataclass(frozen=True)
class Milliseconds:
    """Wall time of each stage."""

    decode: float
    queue: float
    infer: float
    encode: float


@dataclass(frozen=True)
class ImageResult:
    """What was found in one photo."""

    name: Annotated[str, Field(description="file name of the part, or 'image'")]
    width: Annotated[int, Field(description="pixels, after EXIF orientation")]
    height: Annotated[int, Field(description="pixels, after EXIF orientation")]
    model: str
    classes: Annotated[list[ClassArea], Field(description="present in the mask, by id")]
    mask: Annotated[
        PngMask | RleMask | None, Field(description="null in a ZIP, where it is a file")
    ]
    alpha: Annotated[list[AlphaMap] | None, Field(description="null unless alpha=maps")]
    timing_ms: Milliseconds


@dataclass(frozen=True)
class SegmentReply:
    """One result for each image, in the order sent."""

    images: list[ImageResult]


@dataclass(frozen=True)
class Health:
    """Whether requests are welcome, and why not."""

    status: Literal["alive", "ready", "starting", "draining"]


@dataclass(frozen=True)
class ModelInfo:
    """A loaded model."""

    name: str
    network: str
    classes: Annotated[list[dict[str, Any]], Field(description="id, name, color")]
    stages: Annotated[list[dict[str, Any]], Field(description="the pooling stages, for alpha=")]
    input: Annotated[
        dict[str, Any], Field(description="max_side and multiple, or the one size, in pixels")
    ]
    provider: Annotated[str, Field(description="ONNX Runtime execution provider")]
    kernels: Annotated[Literal["native", "portable"], Field(description="of the pooling operators")]
    kernels_reason: Annotated[str, Field(description="why portable; empty when native")]
    file: str
    sha256: str
    training: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Problem:
    """An error, as RFC 9457 has it; further members depend on the type."""

    type: Annotated[str, Field(description="stable identifier of this kind of problem")]
    title: str
    status: int
    detail: Annotated[str, Field(description="what to do about it")]
