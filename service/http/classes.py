"""Which classes of a model a client means."""

from __future__ import annotations

from ppool.service.http.errors import BadRequest
from ppool.service.models import Model

__all__ = ["class_ids", "overlapping"]

# Of a name that is told back, and of classes.
_SHOWN, _SHOWN_CLASSES = 80, 20


def overlapping(model: Model, classes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The classes, or all, each of which has regions of its own, whatever the mask has there."""
    if model.head != "multilabel" or not model.offers_scores:
        return ()
    return tuple(range(len(model.classes))) if classes is None else classes


def class_ids(option: str, text: str, model: Model) -> tuple[int, ...]:
    """The ids of what an option lists: names or ids between commas, or ``all``.

    Raises:
        BadRequest: if the model has none of that name, or none is named.
    """
    known = {name: index for index, name in reversed([*enumerate(model.class_names)])}
    if text == "all":
        return tuple(range(len(model.class_names)))
    if text in known:  # which may have commas
        return (known[text],)
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        index = known.get(part)
        if index is None and part.isascii() and part.isdecimal() and len(part) <= 5:
            index = int(part)
        if index is None or index >= len(model.class_names):
            names = ", ".join(name[:_SHOWN] for name in model.class_names[:_SHOWN_CLASSES])
            more = ", ..." if len(model.class_names) > _SHOWN_CLASSES else ""
            raise BadRequest(
                f"{option}: the model {model.name!r} has no class {part[:_SHOWN]!r}; it has "
                f"{names}{more}."
            )
        found.append(index)
    if not found:
        raise BadRequest(f"{option}: name classes of the model, with commas between, or all.")
    return tuple(dict.fromkeys(found))
