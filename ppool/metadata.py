"""What an exported file says of itself: the contract between export and service.

The whole description is one JSON document under the key ``ppool`` of the ONNX file's metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["METADATA_KEY", "InputPolicy", "LabelClass", "ModelMetadata", "Stage"]

METADATA_KEY = "ppool"
FORMAT = 1


@dataclass(frozen=True)
class LabelClass:
    """One class: its index in the mask, its name, and its colour as ``#rrggbb``."""

    id: int
    name: str
    color: str

    def __post_init__(self) -> None:
        if not 0 <= self.id <= 255:
            raise ValueError(f"class id: expected 0 to 255, got {self.id!r}")
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
    then padded at the bottom and right to multiples of ``multiple``. With ``size`` (height, width
    in pixels) every image is resized to exactly that instead, whatever its proportions.
    """

    max_side: int
    multiple: int
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.multiple < 1 or self.max_side < self.multiple:
            raise ValueError(
                f"input policy: expected 1 <= multiple <= max_side, got multiple "
                f"{self.multiple!r} and max_side {self.max_side!r}"
            )
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"input policy: expected size (height, width), got {self.size!r}")

    @classmethod
    def fixed(cls, height: int, width: int) -> InputPolicy:
        """The policy of a network that takes images of one size only."""
        return cls(max(height, width), 1, (height, width))

    def reduced(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this size is resized to, before any padding.

        Example:
            >>> InputPolicy(max_side=100, multiple=16).reduced(300, 900)
            (33, 100)
        """
        if self.size is not None:
            return self.size
        longer = max(height, width)
        if longer <= self.max_side:
            return height, width
        scale = self.max_side / longer
        return max(1, round(height * scale)), max(1, round(width * scale))

    def padded(self, side: int) -> int:
        """The least multiple of ``multiple`` that holds ``side`` pixels.

        Example:
            >>> InputPolicy(max_side=100, multiple=16).padded(33)
            48
        """
        return -(-side // self.multiple) * self.multiple


@dataclass(frozen=True)
class ModelMetadata:
    """Everything a server or a person needs to know of an exported model.

    The graph takes ``image``, uint8 [N, H, W, 3] RGB, and gives ``mask``, uint8 [N, H, W] of class
    ids, plus one alpha map for each entry of ``stages``. ``name`` is what a server calls the model,
    in printable ASCII without ``/``.
    """

    name: str
    network: str
    classes: tuple[LabelClass, ...]
    input: InputPolicy
    stages: tuple[Stage, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # It is a part of URLs, and a header, X-Model.
        if not re.fullmatch("[!-.0-~]+( [!-.0-~]+)*", self.name):
            raise ValueError(
                f"name: expected printable ASCII without '/', got {self.name!r}; give the model "
                "another name"
            )
        if [label.id for label in self.classes] != list(range(len(self.classes))):
            raise ValueError("classes: expected ids 0, 1, 2, ... in order")

    def to_json(self) -> str:
        """The document as stored in the file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelMetadata:
        """Read a document written by :meth:`to_json`.

        Raises:
            ValueError: if it is not one, or of a newer format than this version knows.
        """
        try:
            document = json.loads(text)
            found = document.pop("format")
            if found != FORMAT:
                raise ValueError(f"format: expected {FORMAT}, got {found!r}; update ppool")
            document["classes"] = tuple(LabelClass(**entry) for entry in document["classes"])
            document["stages"] = tuple(Stage(**entry) for entry in document["stages"])
            policy = InputPolicy(**document["input"])
            if policy.size is not None:  # a list, as JSON has it
                policy = InputPolicy.fixed(*policy.size)
            document["input"] = policy
            return cls(**document)
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a ppool model description: {error}") from error
