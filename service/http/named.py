"""The outputs of a model by their names in the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppool.metadata import label_type
from ppool.service.answers import Alpha, Answer, MapsWanted, Part
from ppool.service.http.classes import class_ids, overlapping
from ppool.service.http.errors import BadRequest
from ppool.service.http.options import SegmentOptions
from ppool.service.models import Model

__all__ = ["FILES", "answer", "default", "outputs"]

FILES: dict[Part, str] = {
    "overlay": "overlay.png",
    "cutout": "cutout.png",
    "polygons": "polygons.geojson",
    "components": "components.json",
    "coco": "coco.json",
}
"""Outputs that are a file of each photo, BYTES, and what it is called among those made of one."""

_OF_REGIONS = {"polygons", "components", "coco"}


def outputs(model: Model) -> list[dict[str, Any]]:
    """Name, datatype and shape of each; sizes that photos decide are -1."""
    label = label_type(len(model.classes)).upper()
    found = [{"name": "mask", "datatype": label, "shape": [-1, -1, -1]}]
    found += [
        {"name": stage.output, "datatype": "FP32", "shape": [-1, stage.channels, -1, -1]}
        for stage in model.stages
    ]
    for names, datatype in ((_probabilities(model), "FP32"), (_planes(model), "UINT8")):
        found += [{"name": name, "datatype": datatype, "shape": [-1, -1, -1]} for name in names]
    return found + [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in FILES]


def default(options: SegmentOptions) -> str:
    """What is wanted where no outputs are named."""
    return "mask" if options.cutout is None else "cutout"


def answer(model: Model, names: Sequence[str], options: SegmentOptions) -> Answer:
    """What the outputs of these names are made of.

    Raises:
        BadRequest: if they cannot be had at a time, or the model has not the classes named.
    """
    alpha: Alpha = (
        "full" if {stage.output for stage in model.stages}.intersection(names) else "none"
    )
    if alpha != "none" and options.mode == "tile":
        raise BadRequest("There are no alpha maps with mode=tile; leave one of the two out.")
    if "cutout" in names and options.cutout is None:
        raise BadRequest("Say which classes the cutout is of by the parameter of that name.")
    files: list[Part] = [part for part in FILES if part in names]
    classes = None if options.classes is None else class_ids("classes", options.classes, model)
    cutout = () if "cutout" not in names else class_ids("cutout", options.cutout or "", model)
    return Answer(
        (*files, "tensors") if set(names).difference(files) else tuple(files),
        alpha,
        tile=options.mode == "tile",
        page=options.page,
        maps=_maps(model, names, classes, cutout),
        classes=classes,
        cutout=cutout,
        tolerance=options.tolerance,
        named=True,
    )


def _maps(
    model: Model,
    names: Sequence[str],
    classes: tuple[int, ...] | None,
    cutout: tuple[int, ...],
) -> MapsWanted:
    known, planes = _probabilities(model), _planes(model)
    asked = [known[name] for name in names if name in known]
    some = tuple(index for index in asked if index is not None)
    if len(some) not in {0, len(asked)}:
        raise BadRequest("Ask for 'probability' or for those of classes, not for both.")
    wanted = tuple(planes[name] for name in names if name in planes)
    if _OF_REGIONS.intersection(names):
        wanted = tuple(dict.fromkeys((*wanted, *overlapping(model, classes))))
    opacity = () if model.why_no_probability else cutout
    return MapsWanted(some if asked else None, wanted, "float32", opacity)


def _probabilities(model: Model) -> dict[str, int | None]:
    """Class ids by the names of outputs; that of the mask's own class has none."""
    if model.why_no_probability:
        return {}
    names = enumerate(model.class_names)
    return {"probability": None} | {f"probability/{name}": index for index, name in names}


def _planes(model: Model) -> dict[str, int]:
    """Class ids by the names of outputs; where classes do not overlap, the mask has them all."""
    return {f"plane/{model.class_names[index]}": index for index in overlapping(model, None)}
