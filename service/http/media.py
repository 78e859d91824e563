"""What can be asked for, and every form of answer: offered, made, put together, documented.

A new form of answer is an entry of :data:`MEDIA_TYPES`; if it holds something that no other does,
that is a further ``Part``, which :mod:`ppool.service.codecs.encoding` makes.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import orjson
from pydantic import BaseModel, Field

from ppool.service.answers import Alpha, Answer, Encoded, MapsWanted, Part
from ppool.service.http.classes import class_ids
from ppool.service.models import Model
from ppool.service.results import Milliseconds, SegmentReply
from ppool.service.timing import StageSeconds

__all__ = ["JSON", "MEDIA_TYPES", "NPZ", "PNG", "ZIP", "MediaType", "SegmentOptions", "offers"]

PNG, JSON, NPZ, ZIP = "image/png", "application/json", "application/x-npz", "application/zip"


class SegmentOptions(BaseModel, extra="forbid"):
    """The options of ``POST /segment``, in the query or as fields of a form."""

    model: str | None = Field(None, description="name of a loaded model; the first by default")
    alpha: Alpha = Field(
        "none",
        description="the pooling exponents: a summary and a picture of each stage (JSON, ZIP), "
        "or all of them as float16 (NPZ, ZIP)",
    )
    overlay: bool = Field(False, description="blend the class colours over the photo (PNG, ZIP)")
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


@dataclass(frozen=True)
class MediaType:
    """One form of answer.

    Attributes:
        description: What it holds, for the API's document.
        carries: Whether it can hold what is asked for.
        parts: What it is made of for each photo.
        exact: Whether it holds probabilities as numbers, not in grey.
        assemble: The body, from what became of each photo.
        of_one_image: Whether it can hold no more than that.
        inline: Whether results carry the masks.
    """

    description: str
    carries: Callable[[SegmentOptions], bool]
    parts: Callable[[SegmentOptions], tuple[Part, ...]]
    assemble: Callable[[Sequence[Encoded]], bytes]
    of_one_image: bool = False
    inline: bool = False
    exact: bool = False

    def answer(self, asked: SegmentOptions, model: Model) -> Answer:
        """What is wanted of each photo.

        Raises:
            BadRequest: if the model has not the classes that are asked for.
        """
        return Answer(
            self.parts(asked),
            asked.alpha,
            inline=asked.mask if self.inline else None,
            tile=asked.mode == "tile",
            page=asked.page,
            maps=self._maps(asked, model),
        )

    def _maps(self, asked: SegmentOptions, model: Model) -> MapsWanted:
        probability: tuple[int, ...] | None = None
        if asked.probability is not None:
            own = asked.probability == "winner"
            probability = () if own else class_ids("probability", asked.probability, model)
        planes = () if asked.planes is None else class_ids("planes", asked.planes, model)
        in_grey: Literal["uint8", "uint16"] = "uint16" if asked.bits == "16" else "uint8"
        return MapsWanted(probability, planes, "float16" if self.exact else in_grey)


def offers(count: int, asked: SegmentOptions) -> tuple[str, ...]:
    """The media types that can carry such an answer for ``count`` images, best first."""
    several = (kind for kind in (ZIP, *MEDIA_TYPES) if not MEDIA_TYPES[kind].of_one_image)
    order = dict.fromkeys(several) if count > 1 else MEDIA_TYPES
    return tuple(kind for kind in order if MEDIA_TYPES[kind].carries(asked))


def _the_file(images: Sequence[Encoded]) -> bytes:
    (content,) = images[0].files.values()
    return content


def _document(images: Sequence[Encoded]) -> bytes:
    results = [
        replace(image.result, timing_ms=_milliseconds(image.seconds))
        for image in images
        if image.result
    ]
    return orjson.dumps(SegmentReply(results))


def _milliseconds(seconds: StageSeconds) -> Milliseconds:
    queue, decode, infer, encode = (round(stage * 1e3, 3) for stage in seconds)
    return Milliseconds(decode=decode, queue=queue, infer=infer, encode=encode)


def _zip(images: Sequence[Encoded]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(images, 1):
            stem = re.sub(r"[^A-Za-z0-9_-]+", "_", image.name.rsplit(".", 1)[0])[:64]
            for kind, content in image.files.items():
                archive.writestr(f"{number:03d}-{stem}.{kind}", content)
        archive.writestr("result.json", _document(images))
    return file.getvalue()


def _picture(asked: SegmentOptions) -> Part:
    return "overlay" if asked.overlay else "mask"


def _maps(asked: SegmentOptions) -> tuple[Part, ...]:
    wanted: dict[Part, str | None] = {"probability": asked.probability, "planes": asked.planes}
    return tuple(part for part, classes in wanted.items() if classes is not None)


def _is_one_picture(asked: SegmentOptions) -> bool:
    """Whether what is asked for is one picture, be it the mask or what takes its place."""
    pictures = [text for text in (asked.probability, asked.planes) if text is not None]
    if any(text == "all" or "," in text for text in pictures):
        return False
    return len(pictures) + asked.overlay <= 1


MEDIA_TYPES = {
    PNG: MediaType(
        "the mask as a palette PNG, whose pixels are class ids (grey in 16 bits of over 256 "
        "classes), or the photo with `overlay=true`, or one `probability` or plane in grey",
        carries=lambda asked: (
            asked.alpha == "none" and asked.mask == "png" and _is_one_picture(asked)
        ),
        parts=lambda asked: _maps(asked) or (_picture(asked),),
        assemble=_the_file,
        of_one_image=True,
    ),
    JSON: MediaType(
        "the classes present, the mask, and a summary of alpha for each image, with probabilities "
        "and planes such as were asked for",
        carries=lambda asked: asked.alpha != "full" and not asked.overlay,
        parts=lambda _: ("result",),
        assemble=_document,
        inline=True,
    ),
    NPZ: MediaType(
        "NumPy arrays: `mask`, and `alpha/<stage>` with `alpha=full`; `probability`, or "
        "`probability/<class>`, and `plane/<class>`",
        carries=lambda asked: asked.alpha != "maps" and not asked.overlay and asked.mask == "png",
        parts=lambda _: ("arrays",),
        assemble=_the_file,
        of_one_image=True,
        exact=True,
    ),
    ZIP: MediaType(
        "a file or two for each image, and `result.json`",
        carries=lambda asked: asked.mask == "png",
        parts=lambda asked: (
            _picture(asked),
            *(("arrays",) if asked.alpha == "full" else ()),
            *_maps(asked),
            "result",
        ),
        assemble=_zip,
    ),
}
"""Every form of answer, best first for one image; for several a ZIP comes first."""
