"""What is wanted of a photo, and what comes of it: what passes between the rooms."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ppool.service.results import ImageResult
from ppool.service.timing import StageSeconds

__all__ = ["Alpha", "Answer", "Encoded", "Part"]

Alpha = Literal["none", "maps", "full"]

# What can be made of one photo; `codecs.encoding` has how.
Part = Literal["mask", "overlay", "arrays", "result", "tensors"]


@dataclass(frozen=True)
class Answer:
    """What is wanted of a photo.

    Attributes:
        parts: What to make.
        alpha: How much of the pooling exponents.
        inline: How the result carries the mask, if it does.
        tile: Segment at full resolution, in windows.
        page: Of the file.
    """

    parts: tuple[Part, ...]
    alpha: Alpha = "none"
    inline: Literal["png", "rle"] | None = None
    tile: bool = False
    page: int = 1

    @property
    def shows_photo(self) -> bool:
        """Whether the photo's own pixels are needed for it."""
        return "overlay" in self.parts


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
