"""The JSON documents of the service: what is sent, and what the OpenAPI page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
    "Serving",
]


class _Described:
    # Workers send these and never load pydantic, so what it should know is in docstrings.
    __pydantic_config__: ClassVar[dict[str, bool]] = {"use_attribute_docstrings": True}


@dataclass(frozen=True)
class ClassArea(_Described):
    """A class that is present in the mask."""

    id: int
    name: str
    color: str
    """As #rrggbb."""
    pixels: int
    fraction: float
    """Of the photo, 0 to 1."""


@dataclass(frozen=True)
class PngMask(_Described):
    """The mask as a palette PNG: pixel = class id."""

    encoding: Literal["png"]
    data: str
    """Base64 of the file."""


@dataclass(frozen=True)
class RleMask(_Described):
    """The mask as COCO run lengths: ``counts`` by class id, to be decoded with ``size``."""

    encoding: Literal["coco_rle"]
    size: tuple[int, int]
    """Height, width."""
    counts: dict[str, str]
    """Compressed run lengths by class id."""


@dataclass(frozen=True)
class AlphaMap(_Described):
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
class Milliseconds(_Described):
    """Wall time of each stage."""

    decode: float
    queue: float
    infer: float
    encode: float


@dataclass(frozen=True)
class ImageResult(_Described):
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


@dataclass(frozen=True)
class SegmentReply(_Described):
    """One result for each image, in the order sent."""

    images: list[ImageResult]


@dataclass(frozen=True)
class Health(_Described):
    """Whether requests are welcome, and why not."""

    status: Literal["alive", "ready", "starting", "draining", "no-worker"]


@dataclass(frozen=True)
class Serving(_Described):
    """How a model is run, and what was measured to choose that."""

    devices: list[str]
    workers: int
    """Processes on each device."""
    threads: int
    """Inside one inference."""
    max_batch_size: int
    measured: list[dict[str, float]]
    """Images a second by workers, threads and batch; empty when the settings left nothing open."""


@dataclass(frozen=True)
class ModelInfo(_Described):
    """A loaded model."""

    name: str
    network: str
    classes: list[dict[str, Any]]
    """id, name, color."""
    stages: list[dict[str, Any]]
    """The pooling stages, for alpha=."""
    input: dict[str, Any]
    """max_side and multiple, or the one size, in pixels."""
    modes: list[Literal["resize", "tile"]]
    """Values of ``mode`` that it can do."""
    provider: str
    """ONNX Runtime execution provider."""
    kernels: Literal["native", "portable"]
    """Of the pooling operators."""
    kernels_reason: str
    """Why portable; empty when native."""
    file: str
    sha256: str
    training: dict[str, Any]
    versions: dict[str, str]
    serving: Serving


@dataclass(frozen=True)
class Problem(_Described):
    """An error, as RFC 9457 has it; further members depend on the type."""

    type: str
    """Stable identifier of this kind of problem."""
    title: str
    status: int
    detail: str
    """What to do about it."""
