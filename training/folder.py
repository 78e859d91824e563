"""The folder of a run: what it was begun with, so that it is not gone on with otherwise."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ppool.training.atomic import write_whole
from ppool.training.recipe import Recipe

__all__ = ["check_unclaimed", "claim"]

logger = logging.getLogger(__name__)

RECIPE, INPUTS = "recipe.json", "inputs.json"


def claim(output: Path, recipe: Recipe, inputs: Mapping[str, Any]) -> None:
    """Write what a run is begun with, for :func:`check_unclaimed`."""
    write_whole(output / INPUTS, json.dumps(inputs, indent=2) + "\n")
    recipe.save(output / RECIPE)


def check_unclaimed(output: Path, recipe: Recipe, inputs: Mapping[str, Any]) -> None:
    """Refuse a folder whose run was begun with other settings, data or weights.

    Weights are compared by content: where their file lies, and how its path is written, decides
    nothing.

    Raises:
        ValueError: if it was; the message says what differs.
    """
    output.mkdir(parents=True, exist_ok=True)
    if not (output / RECIPE).exists():
        return
    was, now = asdict(Recipe.load(output / RECIPE)), asdict(recipe)
    differences = [
        f"{name} {was[name]!r}, now {now[name]!r}"
        for name in now
        if name != "weights" and was[name] != now[name]
    ]
    begun = _inputs(output / INPUTS)
    if begun is None:
        logger.warning("%s: begun before runs recorded their data; taken as it is", output)
        differences += [] if was["weights"] == now["weights"] else [f"weights {was['weights']!r}"]
    else:
        differences += [
            f"{name} {_words(begun.get(name))}, now {_words(found)}"
            for name, found in inputs.items()
            if begun.get(name) != found
        ]
    if differences:
        raise ValueError(
            f"{output}: holds a run with other settings ({'; '.join(differences)}); name another "
            "folder"
        )


def _inputs(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: not the inputs of a run; name another folder") from error
    return found


def _words(entry: Any) -> str:
    if isinstance(entry, Mapping):
        return f"{entry.get('images')} images {entry.get('digest')}"
    return str(entry)
