"""What is wanted of a photo, and what comes of it: what passes between the rooms."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ppool.metadata import HeadKind
from ppool.service.results import ImageResult
from ppool.service.timing import StageSeconds

__all__ = ["Alpha", "Answer", "Encoded", "MapsWanted", "Part", "Picture"]

Alpha = Literal["none", "maps", "full"]

# Of files that show a photo.
Picture = Literal["png", "jpeg", "webp"]

# What can be made of one photo; `codecs.encoding` has how. Brush and outlines are of its planes.
Part = Literal[
    "mask",
    "overlay",
    "cutout",
    "polygons",
    "components",
    "coco",
    "probability",
    "planes",
    "arrays",
    "result",
    "tensors",
    "brush",
    "outlines",
]


@dataclass(frozen=True)
class MapsWanted:
    """Which maps of a photo to make beside its mask.

    Attributes:
        probability: Class ids; empty for the probability of the mask's own class at each pixel;
            ``None`` for no probabilities.
        planes: Class ids, to each of which a pixel belongs or not; ``multilabel`` classes overlap.
        dtype: Of probabilities: floats are from 0 to 1, whole numbers from 0 to their largest.
        opacity: Class ids that one further map is of: how probably a pixel is of any, in uint8.
    """

    probability: tuple[int, ...] | None = None
    planes: tuple[int, ...] = ()
    dtype: Literal["uint8", "uint16", "float16", "float32"] = "uint8"
    opacity: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many maps that is."""
        probabilities = 0 if self.probability is None else len(self.probability) or 1
        return probabilities + len(self.planes) + bool(self.opacity)

    def needs_scores(self, head: HeadKind) -> bool:
        """Whether the mask alone does not tell."""
        if self.probability is not None or self.opacity:
            return True
        return bool(self.planes and head == "multilabel")


@dataclass(frozen=True)
class Answer:
    """What is wanted of a photo.

    Attributes:
        parts: What to make.
        alpha: How much of the pooling exponents.
        inline: How the result carries the mask, if it does.
        tile: Segment at full resolution, in windows.
        page: Of the file.
        maps: What else to make of the network's scores.
        classes: Ids of those to leave in the mask and what is made of it; ``None`` for all.
        cutout: Ids of the classes to keep in a cut-out.
        tolerance: How far in pixels the edges of polygons may move.
        picture: What kind of file overlays and cut-outs are.
        named: Whether the names of all files say what they are.
    """

    parts: tuple[Part, ...]
    alpha: Alpha = "none"
    inline: Literal["png", "rle"] | None = None
    tile: bool = False
    page: int = 1
    maps: MapsWanted = MapsWanted()
    classes: tuple[int, ...] | None = None
    cutout: tuple[int, ...] = ()
    tolerance: float = 1.0
    picture: Picture = "png"
    named: bool = False

    @property
    def keeps(self) -> frozenset[Literal["seen", "straight"]]:
        """In which forms the photo's own pixels are needed for it."""
        forms: dict[Part, Literal["seen", "straight"]] = {"overlay": "seen", "cutout": "straight"}
        return frozenset(forms[part] for part in self.parts if part in forms)


_UNTIMED_STAGES = StageSeconds()


@dataclass(frozen=True)
class Encoded:
    """What became of one photo: files by extension, and JSON where the answer has any."""

    name: str
    files: Mapping[str, bytes]
    pages: int = 1
    result: ImageResult | None = None
    seconds: StageSeconds = _UNTIMED_STAGES

    def __reduce__(self) -> tuple[Any, ...]:
        """Files are sent from where they lie; see :mod:`ppool.service.workers.messages`."""
        files = {kind: pickle.PickleBuffer(content) for kind, content in self.files.items()}
        return Encoded, (self.name, files, self.pages, self.result, self.seconds)
