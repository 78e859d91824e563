"""The outputs of a model by their names in the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppool.metadata import label_type
from ppool.service.answers import Alpha, Answer, MapsWanted
from ppool.service.http.errors import BadRequest
from ppool.service.models import Model

__all__ = ["answer", "outputs"]


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
    return found


def answer(model: Model, names: Sequence[str], page: int) -> Answer:
    """What the outputs of these names are made of.

    Raises:
        BadRequest: if they cannot be had at a time.
    """
    alpha: Alpha = (
        "full" if {stage.output for stage in model.stages}.intersection(names) else "none"
    )
    known, planes = _probabilities(model), _planes(model)
    asked = [known[name] for name in names if name in known]
    some = tuple(index for index in asked if index is not None)
    if len(some) not in {0, len(asked)}:
        raise BadRequest("Ask for 'probability' or for those of classes, not for both.")
    maps = MapsWanted(
        some if asked else None, tuple(planes[name] for name in names if name in planes), "float32"
    )
    return Answer(("tensors",), alpha, page=page, maps=maps)


def _probabilities(model: Model) -> dict[str, int | None]:
    """Class ids by the names of outputs; that of the mask's own class has none."""
    if model.why_no_probability:
        return {}
    names = enumerate(model.class_names)
    return {"probability": None} | {f"probability/{name}": index for index, name in names}


def _planes(model: Model) -> dict[str, int]:
    """Class ids by the names of outputs; where classes do not overlap, the mask has them all."""
    if model.head != "multilabel" or not model.offers_scores:
        return {}
    return {f"plane/{name}": index for index, name in enumerate(model.class_names)}
