"""What is said of a network: the contract between training, export and service.

What all of them have to know stands in :class:`NetworkDescription`, once. A checkpoint adds the
weights and how to build the network; an exported file its outputs (:class:`ModelMetadata`, one JSON
document under the key ``ppool`` of the ONNX file's metadata); a server how it runs the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, TypeVar, get_args

__all__ = [
    "CONVERTED",
    "METADATA_KEY",
    "MOST_CLASSES",
    "HeadKind",
    "InputPolicy",
    "LabelClass",
    "ModelMetadata",
    "NetworkDescription",
    "Resample",
    "ScoreKind",
    "Scores",
    "Stage",
    "label_type",
]

METADATA_KEY = "ppool"
FORMAT = 1

# In what a file says of its training: ``precision`` that it was converted to, the SHA-256 of the
# file it is made ``of``, and ``mean_iou`` of ``images`` beside ``mean_iou_before``.
CONVERTED = "converted"

# How a network's answer becomes the mask, which is done inside the file.
HeadKind = Literal["argmax", "threshold", "multilabel", "labels"]
# What the output ``logits`` holds.
ScoreKind = Literal["logits", "probabilities", "log-probabilities", "log-odds", "unknown"]

# How photos are resized, by the names that Pillow has for it.
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

MOST_CLASSES = 65536
# Beyond so many pixels a side of a padded photo is at most so many longer, or one multiple.
FINER_FROM, FINER = 1024, 64


def label_type(classes: int) -> Literal["uint8", "uint16"]:
    """The type of a mask with so many classes.

    Example:
        >>> label_type(256), label_type(257)
        ('uint8', 'uint16')
    """
    return "uint8" if classes <= 256 else "uint16"


@dataclass(frozen=True)
class LabelClass:
    """One class: its index in the mask, its name, and its colour as ``#rrggbb``."""

    id: int
    name: str
    color: str

    def __post_init__(self) -> None:
        if not 0 <= self.id < MOST_CLASSES:
            raise ValueError(f"class id: expected 0 to {MOST_CLASSES - 1}, got {self.id!r}")
        if not re.fullmatch("#[0-9a-f]{6}", self.color):
            raise ValueError(f"class color: expected '#rrggbb' in lower case, got {self.color!r}")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three bytes."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


@dataclass(frozen=True)
class Stage:
    """One pooling stage: where its alpha map comes out and how coarse it is.

    ``output`` names the graph output, float32 [N, channels, ceil(H / stride), ceil(W / stride)]
    at most one row or column less; ``stride`` is in input pixels per alpha value.
    """

    name: str
    output: str
    channels: int
    stride: int
    alpha_min: float
    alpha_max: float


@dataclass(frozen=True)
class InputPolicy:
    """What the network wants to be fed.

    An image whose longer side exceeds ``max_side`` pixels is resized to it; height and width are
    then padded at the bottom and right to multiples of ``multiple``, by repeating its last row and
    column. With ``min_side`` the shorter side becomes that long first, if need be by enlarging.
    With ``size`` (height, width in pixels) every image is resized to exactly that instead, whatever
    its proportions, or, with ``pad`` (red, green, blue), to fit into that, and the rest at the
    bottom and right is of that colour.

    With ``rounds`` sides are rounded to multiples of ``multiple`` rather than padded, and one of
    them becomes ``min_side`` long, whichever takes less scaling: as networks for depth have it.
    ``resample`` is how photos are resized.
    """

    max_side: int
    multiple: int
    size: tuple[int, int] | None = None
    pad: tuple[int, int, int] | None = None
    min_side: int | None = None
    resample: Resample = "bilinear"
    rounds: bool = False

    def __post_init__(self) -> None:
        if self.resample not in get_args(Resample):
            raise ValueError(
                f"input policy: expected resample to be one of {', '.join(get_args(Resample))}, "
                f"got {self.resample!r}"
            )
        if self.rounds and self.min_side is None:
            raise ValueError("input policy: expected min_side beside rounds")
        if self.multiple < 1 or self.max_side < self.multiple:
            raise ValueError(
                f"input policy: expected 1 <= multiple <= max_side, got multiple "
                f"{self.multiple!r} and max_side {self.max_side!r}"
            )
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"input policy: expected size (height, width), got {self.size!r}")
        if self.pad is not None and (
            self.size is None or len(self.pad) != 3 or not all(0 <= v <= 255 for v in self.pad)
        ):
            raise ValueError(
                f"input policy: expected pad (red, green, blue) of 0 to 255 beside size, got "
                f"{self.pad!r} beside {self.size!r}"
            )
        if self.min_side is not None and (self.size or not 1 <= self.min_side <= self.max_side):
            raise ValueError(
                f"input policy: expected 1 <= min_side <= max_side and no size, got "
                f"{self.min_side!r}"
            )

    @classmethod
    def fixed(
        cls,
        height: int,
        width: int,
        pad: tuple[int, int, int] | None = None,
        resample: Resample = "bilinear",
    ) -> InputPolicy:
        """The policy of a network that takes images of one size only."""
        return cls(max(height, width), 1, (height, width), pad, resample=resample)

    def reduced(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this size is resized to, before any padding.

        Example:
            >>> InputPolicy(max_side=100, multiple=16).reduced(300, 900)
            (33, 100)
        """
        if self.size is not None and self.pad is None:
            return self.size
        if self.rounds and self.min_side is not None:
            scales = (self.min_side / height, self.min_side / width)
            scale = min(scales, key=lambda scale: abs(1 - scale))
            most = self.padded(self.max_side)
            return self._rounded(height * scale, most), self._rounded(width * scale, most)
        high, wide = self.size or (self.max_side, self.max_side)
        scale = min(high / height, wide / width)
        if self.size is None:
            wanted = 1 if self.min_side is None else self.min_side / min(height, width)
            scale = min(scale, wanted)
        if scale == 1:
            return height, width
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _rounded(self, side: float, most: int) -> int:
        units = round(side / self.multiple)
        return min(max(units, 1) * self.multiple, most)

    def padded(self, side: int) -> int:
        """The least multiple of ``multiple`` that holds ``side`` pixels.

        Example:
            >>> InputPolicy(max_side=100, multiple=16).padded(33)
            48
        """
        return _ceil_div(side, self.multiple) * self.multiple

    def rung(self, side: int) -> int:
        """The rung of a ladder that holds ``side`` pixels, so that photos of many sizes are of few.

        Rungs are multiples of ``multiple``, four to each doubling, so a side grows by less than a
        quarter plus one multiple; the last rung just holds ``max_side``. Photos of more than 1024
        pixels gain little by sharing a batch, and lose much by pixels that are none of theirs: of
        these the rungs are 64 pixels apart, or one multiple.

        Example:
            >>> [InputPolicy(max_side=1000, multiple=16).rung(side) for side in (7, 300, 1000)]
            [16, 320, 1008]
            >>> InputPolicy(max_side=1792, multiple=32).rung(1344)
            1344
        """
        units, most = _ceil_div(side, self.multiple), _ceil_div(self.max_side, self.multiple)
        step = max(1 << (units - 1).bit_length() >> 3, 1)
        if _ceil_div(units, step) * step * self.multiple > FINER_FROM:
            step = min(step, max(FINER // self.multiple, 1))
        return min(_ceil_div(units, step) * step, most) * self.multiple

    def padded_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after padding: on the ladder, or the one size."""
        if self.rounds:
            return self.padded(height), self.padded(width)
        return self.size or (self.rung(height), self.rung(width))

    def tiled_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in whole windows: what segmenting in windows costs grows with it."""
        high, wide = self.size or (self.max_side, self.max_side)
        return _ceil_div(height, high) * high, _ceil_div(width, wide) * wide


def _ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)


@dataclass(frozen=True)
class Scores:
    """What the output ``logits``, float32 [N, classes, h, w], says of each class.

    Heads ``threshold`` and ``multilabel`` have the background's first: 0, where ``threshold`` was
    taken off the others; ``log-odds`` are of a network that gave probabilities, as is the
    threshold then. Of ``unknown`` values nobody can tell what probability they mean. ``on_grid`` is
    whether each score stands for a whole number of pixels, without which scores of overlapping
    windows cannot be blended.
    """

    values: ScoreKind = "logits"
    threshold: float = 0.0
    on_grid: bool = True


# A field of a document, as it is in a description.
_READ: dict[str, Callable[[Any], Any]] = {
    "classes": lambda entries: tuple(LabelClass(**entry) for entry in entries),
    "scores": lambda entry: entry and Scores(**entry),
    "input": lambda entry: InputPolicy(**{key: _tupled(entry[key]) for key in entry}),
    "stages": lambda entries: tuple(Stage(**entry) for entry in entries),
}

D = TypeVar("D", bound="NetworkDescription")


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class NetworkDescription:
    """What a network was made for.

    Attributes:
        network: Its name or its class, for people.
        classes: What the ids in its masks mean.
        input: What it wants to be fed.
        training: How the weights came to be: data, seed, iterations, scores.
        head: What the mask is made of: the largest logit; one channel, or several, above a
            threshold, else class 0, the background; or the network's own labels.
    """

    network: str
    classes: tuple[LabelClass, ...]
    input: InputPolicy
    training: Mapping[str, Any] = field(default_factory=dict)
    head: HeadKind = "argmax"

    def __post_init__(self) -> None:
        if [label.id for label in self.classes] != list(range(len(self.classes))):
            raise ValueError("classes: expected ids 0, 1, 2, ... in order")

    def into(self, kind: type[D], **further: Any) -> D:
        """The same as another kind of description, whose other fields are ``further``."""
        shared = {entry.name for entry in fields(kind)} & {entry.name for entry in fields(self)}
        return kind(**{name: getattr(self, name) for name in shared} | further)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a description, of whose values some are as JSON has them.

        Raises:
            ValueError: if it is of a newer format than this version knows.
            AttributeError, KeyError, TypeError: if it is something else.
        """
        values = dict(document)
        if (found := values.pop("format")) != FORMAT:
            raise ValueError(f"format: expected {FORMAT}, got {found!r}; update ppool")
        return cls(**values | {key: _READ[key](values[key]) for key in _READ.keys() & values})


@dataclass(frozen=True, kw_only=True)
class ModelMetadata(NetworkDescription):
    """Everything a server or a person needs to know of an exported model.

    The graph takes ``image``, uint8 [N, H, W, 3] RGB, and gives ``mask``, uint8 [N, H, W] of class
    ids (uint16 of more than 256 classes), plus one alpha map for each entry of ``stages``.

    Attributes:
        name: What a server calls the model, in printable ASCII without ``/``.
        stages: The pooling stages whose exponents come out.
        versions: Of the packages that wrote the file.
        card: What to know before trusting it, in Markdown: data, scores, limits; may be empty.
        scores: What the mask is made of; ``None`` of labels, which are not made of anything.
    """

    name: str
    stages: tuple[Stage, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    card: str = ""
    scores: Scores | None = field(default_factory=Scores)

    def __post_init__(self) -> None:
        super().__post_init__()
        # It is a part of URLs, and a header, X-Model.
        if not re.fullmatch("[!-.0-~]+( [!-.0-~]+)*", self.name):
            raise ValueError(
                f"name: expected printable ASCII without '/', got {self.name!r}; give the model "
                "another name"
            )

    def to_json(self) -> str:
        """The document as stored in the file."""
        document = {"format": FORMAT, **_said(self), "input": _said(self.input)}
        if self.scores == _scores_of_earlier(self.head, self.training):
            del document["scores"]
        return json.dumps(document, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelMetadata:
        """Read a document written by :meth:`to_json`.

        Raises:
            ValueError: if it is not one, or of a newer format than this version knows.
        """
        try:
            document = json.loads(text)
            if "scores" not in document:
                head, training = document.get("head", "argmax"), document.get("training", {})
                scores = _scores_of_earlier(head, training)
                document["scores"] = scores and asdict(scores)
            return cls.from_document(document)
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a ppool model description: {error}") from error


def _said(description: ModelMetadata | InputPolicy) -> dict[str, Any]:
    """Its fields but those that say nothing new: earlier versions read files without them."""
    usual = {entry.name: entry.default for entry in fields(description)}
    return {key: value for key, value in asdict(description).items() if value != usual[key]}


def _scores_of_earlier(head: HeadKind, training: Mapping[str, Any]) -> Scores | None:
    """Of a file that does not say: earlier ones have a sentence on an adopted network's mask."""
    said = str(training.get("mask", "")) if "adopted" in training else ""
    above = re.search(r"above (\S+), else", said)
    level = float(above[1]) if above else 0.0
    if head == "labels":
        return None
    values: ScoreKind = "logits"
    if head == "threshold" and "probabilities" in said:
        values = "log-odds"
    elif head == "multilabel" and 0 < level < 1:
        # A half is the default for probabilities, and of logits nobody would choose it.
        values = "log-odds" if level == 0.5 else "unknown"
    elif "probabilities" in said:
        values = "unknown"
    return Scores(values, level)
