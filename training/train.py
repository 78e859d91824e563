"""Train a network as a recipe says: seeded, resumable, on one process or several."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ppool.feeding import Normalisation
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint
from ppool.provenance import provenance
from ppool.training.alpha import alpha_maps, resting_alpha
from ppool.training.crops import Batch, CropSampler, batches
from ppool.training.dataset import SegmentationDataset
from ppool.training.evaluate import Evaluation, evaluate
from ppool.training.folder import check_unclaimed, claim
from ppool.training.identity import check_held_out, check_training, file_digest, identity
from ppool.training.loss import balancing_weights, divisor, total_loss
from ppool.training.optimizer import build_optimizer
from ppool.training.processes import Processes, processes
from ppool.training.progress import Journal
from ppool.training.recipe import Recipe, learning_rate
from ppool.training.start import start_model

__all__ = ["Runtime", "train"]

logger = logging.getLogger(__name__)

SAVE_EVERY = 200
# After so many steps in a row whose gradient is not finite at any scale, there is no network left.
MOST_SKIPPED = 100


@dataclass(frozen=True)
class Runtime:
    """How to run, with no bearing on the result.

    Attributes:
        workers: Threads that read and cut images ahead.
        tensorboard: Also write curves for TensorBoard.
    """

    workers: int = 0
    tensorboard: bool = False


@dataclass
class _Progress:
    """How far a run is.

    Attributes:
        done: Optimiser steps.
        skipped: Batches whose float16 gradient overflowed, so that no step was made of them.
        seconds: Time it took.
    """

    done: int = 0
    skipped: int = 0
    seconds: float = 0.0


@dataclass
class _Run:
    """What one step of a run needs."""

    recipe: Recipe
    model: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    weights: Tensor | None
    group: Processes
    progress: _Progress = field(default_factory=_Progress)


class _ImageLevel(nn.Module):
    """A segmentation network as a classifier: the mean of its logits over the image.

    The classifier being linear, that is a global average pooling before it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits.mean((2, 3), keepdim=True)


def train(
    recipe: Recipe,
    training: SegmentationDataset,
    held_out: SegmentationDataset,
    output: Path,
    *,
    runtime: Runtime | None = None,
) -> Checkpoint:
    """Run or resume ``recipe`` and leave ``checkpoint.pt``, its settings and ``log.jsonl``.

    A run goes on to the same weights as if it had not been interrupted, bit for bit on as many
    threads of the same machine; ``inputs.json`` beside ``recipe.json`` tells what it was made from.

    Under ``torchrun`` every process calls it: each computes its share of every batch and of the
    held-out images. Batch norm sees one process's share at a time.

    Args:
        recipe: What to do. An ``output`` begun with other settings, data or weights is refused.
        training: Images to draw crops from.
        held_out: Images to score at the end.
        output: Folder of this run; made if missing.
        runtime: How to do it.

    Returns:
        The checkpoint, whose ``training`` records recipe, scores, alphas, commit and versions.

    Raises:
        ValueError: if ``output`` holds another run, if the batch cannot be shared out evenly, if
            no pixel of a data set has a label, or if the loss is not finite.
        FileNotFoundError: if an image of ``held_out`` or the file of weights is missing.
    """
    runtime = runtime or Runtime()
    with processes() as group:
        if recipe.batch_size % (group.count * recipe.accumulate):
            raise ValueError(
                f"batch_size: expected a multiple of {group.count} processes x {recipe.accumulate} "
                f"parts, got {recipe.batch_size!r}"
            )
        inputs = _inputs(recipe, training, held_out)
        check_unclaimed(output, recipe, inputs)
        # Every process looks before the first of them claims the folder.
        group.wait()
        finished = output / "checkpoint.pt"
        if not finished.exists():
            check_training(training)
            check_held_out(held_out)
            run = _begin(recipe, training, group)
            if group.rank == 0:
                # Not before: settings that cannot begin claim nothing.
                claim(output, recipe, inputs)
            _train(run, (training, held_out), output, runtime, inputs)
        group.wait()
        return Checkpoint.load(finished)


def _inputs(
    recipe: Recipe, training: SegmentationDataset, held_out: SegmentationDataset
) -> dict[str, Any]:
    """What the result depends on beside the recipe."""
    weights = None if recipe.weights is None else file_digest(Path(recipe.weights))
    return {
        "training": identity(training),
        "held_out": identity(held_out),
        "weights_digest": weights,
    }


def _train(
    run: _Run,
    data: tuple[SegmentationDataset, SegmentationDataset],
    output: Path,
    runtime: Runtime,
    inputs: dict[str, Any],
) -> None:
    training, held_out = data
    recipe, main = run.recipe, run.group.rank == 0
    _resume(output / "state.pt", run)
    progress = run.progress
    began = time.monotonic() - progress.seconds
    attempts = itertools.count(progress.done + progress.skipped)
    batched = closing(batches(CropSampler(training, recipe), attempts, runtime.workers))
    journal = Journal(output, recipe, progress.done, tensorboard=runtime.tensorboard, active=main)
    with journal, batched as drawn:
        in_a_row = 0
        while progress.done < recipe.iterations:
            loss = train_one_iteration(run, progress.done, next(drawn))
            if loss is None:
                progress.skipped, in_a_row = progress.skipped + 1, in_a_row + 1
                journal.skip(progress.done)
                if in_a_row == MOST_SKIPPED:
                    raise ValueError(_not_finite(progress.done, recipe))
                continue
            if not math.isfinite(loss):
                raise ValueError(_not_finite(progress.done, recipe))
            in_a_row = 0
            progress.done += 1
            journal.step(progress.done - 1, loss, lambda: resting_alpha(run.model))
            progress.seconds = time.monotonic() - began
            if main and progress.done % SAVE_EVERY == 0:
                _save_state(output / "state.pt", run)
        scores = _evaluate(run, held_out).scores(held_out.classes)
        if main:
            record = {
                "recipe": asdict(recipe),
                "inputs": inputs,
                "images": len(training),
                "seconds": round(progress.seconds, 1),
                "skipped_steps": progress.skipped,
                "threads": torch.get_num_threads(),
                "processes": run.group.count,
                "held_out": scores | {"images": len(held_out)},
                "alpha": resting_alpha(run.model),
                "alpha_maps": alpha_maps(run.model, _some_images(run, held_out)),
                **provenance(),
            }
            journal.finish(record["held_out"])
            _checkpoint(run, held_out.classes, record).save(output / "checkpoint.pt")
            (output / "state.pt").unlink(missing_ok=True)


def _not_finite(iteration: int, recipe: Recipe) -> str:
    cure = "lower learning_rate"
    if recipe.precision == "float16":
        cure += " or set precision=bfloat16"
    return f"loss: not finite at iteration {iteration + 1}; {cure} and begin in another folder"


def train_one_iteration(run: _Run, iteration: int, batch: Batch) -> float | None:
    """One step on this process's share of a batch.

    Returns:
        The loss of the whole batch; None if no step was made because the gradient, scaled for
        float16, overflowed. The schedule then stands still and the next batch tries again.
    """
    recipe, group = run.recipe, run.group
    for settings in run.optimizer.param_groups:
        settings["lr"] = settings["scale"] * learning_rate(recipe, iteration)
    # Dropout depends on iteration and process alone, so that a resumed run repeats it.
    torch.manual_seed(_stream(recipe.seed, iteration + run.progress.skipped, group.rank))
    mine = slice(group.rank, None, group.count)
    images = batch[0][mine]
    masks = torch.from_numpy(np.ascontiguousarray(batch[1][mine])).long().to(group.device)
    whole = group.sum(divisor(masks, recipe.loss, run.weights)).clamp_min(1e-6)

    run.forward.train()
    run.optimizer.zero_grad()
    size = len(images) // recipe.accumulate
    total = torch.zeros((), device=group.device)
    for first in range(0, len(images), size):
        part = slice(first, first + size)
        x = _input(run, images[part])
        last = first + size == len(images)
        with _gradients_shared(run.forward, last):
            with _autocast(run):
                logits = run.forward(x)
            loss = total_loss(logits, masks[part], recipe.loss, run.weights) / whole
            # Over processes gradients are averaged, where the loss is a sum.
            run.scaler.scale(loss * group.count).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    run.scaler.step(run.optimizer)
    scale = run.scaler.get_scale()
    run.scaler.update()
    whole_loss = float(group.sum(total))
    return None if run.scaler.get_scale() < scale else whole_loss


def _begin(recipe: Recipe, training: SegmentationDataset, group: Processes) -> _Run:
    model = start_model(recipe, training)
    model = model.to(group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = _ImageLevel(model) if recipe.task == "classification" else model
    if group.count > 1:
        forward = DistributedDataParallel(forward)
    weights = balancing_weights(training) if recipe.loss == "balanced" else None
    return _Run(
        recipe,
        model,
        forward,
        build_optimizer(model, recipe),
        torch.amp.GradScaler(group.device.type, enabled=recipe.precision == "float16"),
        None if weights is None else weights.to(group.device),
        group,
    )


def _stream(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _input(run: _Run, images: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    x = torch.from_numpy(Normalisation(run.recipe.mean, run.recipe.std)(images))
    return x.to(run.group.device, memory_format=torch.channels_last)


def _autocast(run: _Run) -> torch.autocast:
    precision = run.recipe.precision
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(run.group.device.type, dtype, enabled=precision != "float32")


@contextmanager
def _gradients_shared(forward: nn.Module, last: bool) -> Iterator[None]:
    """Gradients travel between processes with the last part of a batch only."""
    waits = isinstance(forward, DistributedDataParallel) and not last
    with cast(DistributedDataParallel, forward).no_sync() if waits else nullcontext():
        yield


def _evaluate(run: _Run, held_out: SegmentationDataset) -> Evaluation:
    """Every process's share of the held-out images, counted together."""
    group = run.group
    # Without the wrapper: processes with unequal shares must not wait for each other here.
    model = run.forward.module if isinstance(run.forward, DistributedDataParallel) else run.forward
    found = evaluate(
        cast(nn.Module, model),
        (held_out[i] for i in range(group.rank, len(held_out), group.count)),
        num_classes=len(held_out.classes),
        normalise=Normalisation(run.recipe.mean, run.recipe.std),
        policy=_policy(run.recipe),
    )
    found.counts = _summed(found.counts, group)
    if found.ranking is not None:
        found.ranking.counts = _summed(found.ranking.counts, group)
    return found


def _summed(counts: NDArray[np.int64], group: Processes) -> NDArray[np.int64]:
    summed: NDArray[np.int64] = group.sum(torch.from_numpy(counts).to(group.device)).cpu().numpy()
    return summed


def _some_images(run: _Run, held_out: SegmentationDataset) -> Iterator[Tensor]:
    multiple = run.recipe.multiple
    for index in range(min(len(held_out), 16)):
        image = held_out[index].image
        height, width = (side // multiple * multiple for side in image.shape[:2])
        if height and width:
            yield _input(run, image[None, :height, :width])


def _policy(recipe: Recipe) -> InputPolicy:
    return InputPolicy(recipe.max_side, recipe.multiple)


def _checkpoint(run: _Run, classes: tuple[LabelClass, ...], record: dict[str, Any]) -> Checkpoint:
    recipe = run.recipe
    return Checkpoint(
        network=recipe.network,
        pooling=recipe.pooling,
        classes=classes,
        input=_policy(recipe),
        mean=recipe.mean,
        std=recipe.std,
        state_dict={key: value.cpu() for key, value in run.model.state_dict().items()},
        training=record,
        ppool_place=recipe.ppool_place,
        ppool_options=recipe.ppool_options,
    )


def _resume(path: Path, run: _Run) -> None:
    if not path.exists():
        return
    state = torch.load(path, map_location=run.group.device, weights_only=True)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    run.progress = _Progress(state["iteration"], state.get("skipped", 0), state["seconds"])
    began = {"threads": state.get("threads"), "processes": state.get("processes")}
    for name, now in (("threads", torch.get_num_threads()), ("processes", run.group.count)):
        if began[name] not in {None, now} and run.group.rank == 0:
            logger.warning(
                "%s: begun on %s %s and goes on on %s, so the last bits of its weights will not be "
                "those of a run without a break", path.parent, began[name], name, now,
            )  # fmt: skip


def _save_state(path: Path, run: _Run) -> None:
    partial = path.with_name(path.name + ".partial")
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "iteration": run.progress.done,
        "skipped": run.progress.skipped,
        "seconds": run.progress.seconds,
        "threads": torch.get_num_threads(),
        "processes": run.group.count,
    }
    torch.save(state, partial)
    partial.replace(path)
