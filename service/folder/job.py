"""How a run segments: the answers wanted, and what they are made with."""

from __future__ import annotations

from dataclasses import dataclass

from ppool.service.answers import Answer, MapsWanted, Part
from ppool.service.folder.pdf import DPI
from ppool.service.folder.summary import ENDS
from ppool.service.http.classes import class_ids
from ppool.service.http.errors import BadRequest
from ppool.service.models import Model

__all__ = ["Job"]

# The kinds of files that are made with the mask; any other is the result.
_PARTS: tuple[Part, ...] = (
    *("mask", "overlay", "cutout", "probability", "polygons", "coco", "components"),
)
# Those that tell of overlapping classes.
_OF_PLANES = frozenset({"polygons", "coco", "components", "json"})


@dataclass(frozen=True)
class Job:
    """How to segment.

    Attributes:
        outputs: The kinds of files to write, of :data:`ENDS`.
        tile: Segment at full resolution, in windows.
        dpi: At which pages of a PDF are drawn.
        classes: Names or ids, with commas, of the classes to leave; ``None`` for all.
        cutout: Likewise of those to keep in cut-outs.
        workers: Pages, or batches of them, at a time.
        batch: Pages of one shape that go through the model together, at most.
    """

    outputs: tuple[str, ...] = ("mask",)
    tile: bool = False
    dpi: int = DPI
    classes: str | None = None
    cutout: str | None = None
    workers: int = 1
    batch: int = 1

    @property
    def options(self) -> str:
        """What changes the files, for the summary."""
        others = {
            "tile": self.tile,
            f"dpi={self.dpi}": self.dpi != DPI,
            f"classes={self.classes}": self.classes is not None,
            f"cutout={self.cutout}": self.cutout is not None,
        }
        words = (word.replace("+", "%2B") for word, holds in others.items() if holds)
        return "+".join([*self.outputs, *words])

    @property
    def files(self) -> str:
        """What the names of files are like, in words."""
        return ", ".join(f"*{ENDS[kind]}" for kind in self.outputs)

    def answer(self, model: Model) -> Answer:
        """What is to be made of each page.

        Raises:
            ValueError: if the model cannot.
        """
        parts = tuple(part for part in _PARTS if part in self.outputs)
        if "probability" in parts and model.why_no_probability:
            raise ValueError(model.why_no_probability)
        if self.tile and "tile" not in model.modes:
            raise ValueError(
                f"the model {model.name!r} cannot segment in windows; leave out --tile"
            )
        if ("cutout" in parts) != (self.cutout is not None):
            raise ValueError("say with --cutout which classes a cut-out is of, and write it")
        classes, cutout = _ids("classes", self.classes, model), _ids("cutout", self.cutout, model)
        # As at /segment: overlapping classes are told by planes, and edges are soft where it is
        # known how.
        overlap = model.head == "multilabel" and model.offers_scores
        planes = range(len(model.classes)) if classes is None else classes
        return Answer(
            (*parts, "result"),
            inline="rle" if "json" in self.outputs else None,
            tile=self.tile,
            maps=MapsWanted(
                () if "probability" in parts else None,
                tuple(planes) if overlap and not _OF_PLANES.isdisjoint(self.outputs) else (),
                opacity=() if model.why_no_probability else cutout or (),
            ),
            classes=classes,
            cutout=cutout or (),
            named=True,
        )


def _ids(option: str, text: str | None, model: Model) -> tuple[int, ...] | None:
    try:
        return None if text is None else class_ids(option, text, model)
    except BadRequest as error:
        raise ValueError(error.detail) from error
