"""What can be asked of ``POST /segment``."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from ppool.service.answers import Alpha, Part

__all__ = ["ANSWERS", "SegmentOptions"]

ANSWERS: tuple[Part, ...] = (
    "mask",
    "overlay",
    "cutout",
    "polygons",
    "components",
    "coco",
    "probability",
    "planes",
)
"""What ``answers`` may name, in the order of the files in a ZIP."""


class SegmentOptions(BaseModel, extra="forbid"):
    """The options of ``POST /segment``, in the query or as fields of a form."""

    model: str | None = Field(None, description="name of a loaded model; the first by default")
    alpha: Alpha = Field(
        "none",
        description="the pooling exponents: a summary and a picture of each stage (JSON, ZIP), "
        "or all of them as float16 (NPZ, ZIP)",
    )
    overlay: bool = Field(
        False, description="blend the class colours over the photo (PNG, JPEG, WebP, ZIP)"
    )
    cutout: str | None = Field(
        None,
        description="the photo with nothing but these classes, each pixel as opaque as it probably "
        "is of one: some by name or id, with commas between (PNG, WebP, ZIP)",
    )
    classes: str | None = Field(
        None,
        description="leave these classes only in the mask and in what is made of it: some by name "
        "or id, with commas between. Other pixels are of no class: 255, or 65535 in 16 bits",
    )
    answers: str | None = Field(
        None,
        description="what to answer with, with commas between: "
        + ", ".join(ANSWERS)
        + ". Several of them, or of several photos, are files of a ZIP, called by these names; "
        "mask, polygons, components, probability and planes may also be parts of one JSON",
    )
    tolerance: float = Field(
        1.0,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="how far in pixels the edges of polygons may be from those of the mask, so "
        "that they need fewer corners; 0 follows the edges of pixels",
    )
    mode: Literal["resize", "tile"] = Field(
        "resize",
        description="what becomes of a photo larger than the model's input: made smaller, or "
        "segmented at full resolution in overlapping windows, which takes longer (no alpha)",
    )
    page: int = Field(
        1,
        ge=1,
        le=4096,
        description="page of a TIFF, or frame of an animation; X-Pages and `pages` say how many",
    )
    mask: Literal["png", "rle"] = Field("png", description="how the JSON answer carries the mask")
    probability: str | None = Field(
        None,
        description="how probable classes are at each pixel: winner, the class that the mask has "
        "there; or all; or some by name or id, with commas between. In grey, black is 0 and white "
        "1 (PNG for one, JSON, ZIP), or as float16 (NPZ)",
    )
    planes: str | None = Field(
        None,
        description="where each of these classes is, whatever others are there, as those of a "
        "multilabel model may overlap: all; or some by name or id, with commas between",
    )
    bits: Literal["8", "16"] = Field("8", description="of a pixel of probability in a PNG")

    @field_validator("answers")
    @classmethod
    def _known(cls, text: str | None) -> str | None:
        for name in () if text is None else text.split(","):
            if name.strip() not in ANSWERS:
                raise ValueError(f"expected some of {', '.join(ANSWERS)}")
        return text

    @cached_property
    def wanted(self) -> tuple[Part, ...]:
        """What is wanted of each photo; without ``answers``, a picture and what goes with it."""
        further: list[Part] = ["overlay"] if self.overlay else []
        named: dict[Part, str | None] = {
            "cutout": self.cutout,
            "probability": self.probability,
            "planes": self.planes,
        }
        further += [part for part, names in named.items() if names is not None]
        if self.answers is not None:
            given = {name.strip() for name in self.answers.split(",")}
            return tuple(part for part in ANSWERS if part in given.union(further))
        return ("mask",) if not further else tuple(further)

    @property
    def without_names(self) -> Part | None:
        """What cannot be made, as it is not said of which classes."""
        given = {"cutout": self.cutout, "probability": self.probability, "planes": self.planes}
        missing = (part for part in self.wanted if part in given and given[part] is None)
        return next(missing, None)
