"""What a project of Label Studio wants labelled: its configuration, read without entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.parsers import expat

from ppool.service.http.errors import BadRequest

__all__ = ["Labelling", "labelling"]

_MOST_BYTES = 256 * 1024
_TOOLS: dict[str, Literal["brush", "outlines"]] = {
    "BrushLabels": "brush",
    "PolygonLabels": "outlines",
}


@dataclass(frozen=True)
class Labelling:
    """How the regions of a photo are to be labelled.

    Attributes:
        tool: What regions are.
        from_name: Of the tag with the labels.
        to_name: Of the picture's tag.
        key: Under which tasks have the photo.
        labels: By the ids of the classes that have one.
    """

    tool: Literal["brush", "outlines"]
    from_name: str
    to_name: str
    key: str
    labels: Mapping[int, str]

    @property
    def kind(self) -> str:
        """The type of its results."""
        return "brushlabels" if self.tool == "brush" else "polygonlabels"


@dataclass
class _Tag:
    """A tag with labels: each under its own name, and others that predictions may have for it."""

    tool: str
    name: str
    to_name: str
    labels: list[tuple[str, set[str]]] = field(default_factory=list)


def labelling(config: str, classes: Sequence[str]) -> Labelling:
    """What to make of the classes: the first tag with brush or polygon labels that names any.

    Args:
        config: XML.
        classes: Their names, by id.

    Raises:
        BadRequest: if it is something else, or no label is one of the classes.
    """
    tags, pictures = _read(config)
    names = {name.casefold(): number for number, name in enumerate(classes)}
    for tag in tags:
        found = {
            names[name]: label
            for label, aliases in tag.labels
            for name in sorted(aliases)
            if name in names
        }
        if found and tag.to_name in pictures:
            return Labelling(_TOOLS[tag.tool], tag.name, tag.to_name, pictures[tag.to_name], found)
    raise BadRequest(
        "The labelling configuration needs <BrushLabels> or <PolygonLabels> of an <Image> whose "
        f"labels are classes of the model, or say so in predicted_values: {', '.join(classes)}."
    )


def _read(config: str) -> tuple[list[_Tag], dict[str, str]]:
    """The tags with labels, and under which key tasks have the picture of each ``Image``."""
    if len(config) > _MOST_BYTES:
        raise BadRequest(f"Send a labelling configuration of at most {_MOST_BYTES} characters.")
    tags, pictures = list[_Tag](), dict[str, str]()

    def start(name: str, given: dict[str, str]) -> None:
        if name == "Image":
            pictures[given.get("name", "")] = given.get("value", "").removeprefix("$")
        elif name in _TOOLS:
            tags.append(_Tag(name, given.get("name", ""), given.get("toName", "")))
        elif name == "Label" and tags:
            shown = given.get("alias") or given.get("value", "")
            others = given.get("predicted_values", "").split(",")
            aliases = {given.get("value", ""), shown, *others}
            tags[-1].labels.append((shown, {alias.strip().casefold() for alias in aliases}))

    def refuse(*_: object) -> None:
        raise BadRequest("Send a labelling configuration without DOCTYPE.")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(config, True)
    except expat.ExpatError as error:
        raise BadRequest(
            f"Copy the labelling configuration from the project: line {error.lineno} is no XML."
        ) from error
    return tags, pictures
