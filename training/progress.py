"""What a run says while it goes on: a progress bar, ``log.jsonl`` and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ppool.training.recipe import Recipe, learning_rate

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Journal"]

LOG_EVERY = 20


class Journal:
    """Open for the length of a run.

    Args:
        output: Folder of the run.
        recipe: The run's settings.
        start: Iterations already done.
        tensorboard: Also write ``output/tensorboard``.
        active: Whether this process is the one that reports.

    Raises:
        ValueError: if TensorBoard is asked for and not installed.
    """

    def __init__(
        self, output: Path, recipe: Recipe, start: int, *, tensorboard: bool, active: bool
    ) -> None:
        self._recipe = recipe
        self._active = active
        self._output = output
        self._start = start
        pooling = recipe.pooling if isinstance(recipe.pooling, str) else "mixed"
        self._progress = Progress(
            TextColumn(f"{recipe.network} {pooling} seed {recipe.seed}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            disable=not active,
        )
        self._task = self._progress.add_task(
            "train", total=recipe.iterations, completed=start, loss=np.nan
        )
        self._curves = _curves(output / "tensorboard", start) if tensorboard and active else None
        self._opened = ExitStack()

    def __enter__(self) -> Journal:
        self._opened.enter_context(self._progress)
        if self._active:
            path = self._output / "log.jsonl"
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            self._log = self._opened.enter_context(path.open("w"))
            # What an interrupted run did after its last state is done, and logged, again.
            self._log.writelines(line for line in lines if _iteration(line) <= self._start)
        if self._curves is not None:
            self._opened.callback(self._curves.close)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    def step(self, iteration: int, loss: float, alphas: Callable[[], dict[str, float]]) -> None:
        """Report one iteration's loss, and now and then where alpha stands."""
        self._progress.update(self._task, advance=1, loss=loss)
        if not self._active or (iteration + 1) % LOG_EVERY:
            return
        entry = {"iteration": iteration + 1, "loss": loss} | alphas()
        self._write(entry)
        curves = entry | {"learning_rate": learning_rate(self._recipe, iteration)}
        self._draw(curves, iteration + 1)

    def skip(self, iteration: int) -> None:
        """Report a batch that made no step: its float16 gradient overflowed."""
        if self._active:
            self._write({"iteration": iteration, "skipped": "float16 gradient overflowed"})

    def finish(self, held_out: Mapping[str, Any]) -> None:
        """Report the scores on held-out images."""
        values = {f"held_out/{name}": held_out[name] for name in ("mean_iou", "pixel_accuracy")}
        self._draw(values, self._recipe.iterations)

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._log.write(json.dumps(entry) + "\n")
        self._log.flush()

    def _draw(self, values: Mapping[str, Any], iteration: int) -> None:
        if self._curves is not None:
            for name, value in values.items():
                if name != "iteration":
                    self._curves.add_scalar(name, value, iteration)


def _iteration(line: str) -> float:
    try:
        return int(json.loads(line)["iteration"])
    except (KeyError, TypeError, ValueError):
        return np.inf  # cut off as it was written


def _curves(folder: Path, start: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard: not installed; pip install 'ppool[train]'") from error
    return SummaryWriter(str(folder), purge_step=start + 1)
