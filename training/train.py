"""Train a network from scratch on pages: seeded, resumable, with a progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn
from torch.nn import functional as F

from models import Checkpoint, create_model
from ppool import PPool2d
from ppool.metadata import InputPolicy, LabelClass
from training.crops import CropSampler
from training.evaluate import IGNORE, Normalisation, evaluate
from training.pages import PAGE_CLASSES, Page
from training.provenance import provenance
from training.recipe import Recipe, learning_rate

__all__ = ["INPUT", "NORMALISATION", "criterion", "train"]

INPUT = InputPolicy(max_side=1024, multiple=16)
NORMALISATION = Normalisation(mean=(0.6, 0.6, 0.6), std=(0.25, 0.25, 0.25))
SAVE_EVERY = 200


def class_weights(pages: Sequence[Page], num_classes: int) -> Tensor:
    """Square root of inverse frequency, so that thin classes count without drowning the rest."""
    counts = sum(np.bincount(page.mask.ravel(), minlength=256)[:num_classes] for page in pages)
    frequency = counts / np.sum(counts)
    weights = 1 / np.sqrt(np.maximum(frequency, 1e-2))
    return torch.tensor(weights / np.sum(weights * frequency), dtype=torch.float32)


def criterion(logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, averaged over the pixels that carry a label.

    Shape:
        ``logits`` [N, K, H, W], ``masks`` int64 [N, H, W] with 255 ignored, ``weights`` [K].
    """
    return F.cross_entropy(logits, masks, weights, ignore_index=IGNORE)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Side branches apart: their own learning rate and, like biases and norms, no decay."""
    branches = {id(p) for m in model.modules() if isinstance(m, PPool2d) for p in m.parameters()}
    parameters = [p for p in model.parameters() if id(p) not in branches]
    decayed = [p for p in parameters if p.dim() > 1]
    plain = [p for p in parameters if p.dim() <= 1]
    side = [p for p in model.parameters() if id(p) in branches]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay, "scale": 1.0},
        {"params": plain, "weight_decay": 0.0, "scale": 1.0},
        {"params": side, "weight_decay": 0.0, "scale": recipe.branch_learning_rate_scale},
    ]
    return [group for group in groups if group["params"]]


def train(
    recipe: Recipe,
    training: Sequence[Page],
    held_out: Sequence[Page],
    output: Path,
    *,
    classes: tuple[LabelClass, ...] = PAGE_CLASSES,
) -> Checkpoint:
    """Run or resume ``recipe`` and leave ``checkpoint.pt``, ``recipe.json``, ``log.jsonl``.

    Args:
        recipe: What to do. An ``output`` begun with another recipe is refused.
        training: Pages to draw crops from.
        held_out: Pages to score at the end.
        output: Folder of this run; made if missing.
        classes: Names and colours, in mask order.

    Raises:
        ValueError: if ``output`` holds a run with other settings.
    """
    output.mkdir(parents=True, exist_ok=True)
    settings = output / "recipe.json"
    if settings.exists() and Recipe.load(settings) != recipe:
        raise ValueError(f"{output}: holds a run with other settings; name another folder")
    recipe.save(settings)
    finished = output / "checkpoint.pt"
    if finished.exists():
        return Checkpoint.load(finished)

    torch.manual_seed(recipe.seed)
    model = create_model(recipe.network, pooling=recipe.pooling, num_classes=len(classes))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.learning_rate)
    start, seconds = _resume(output / "state.pt", model, optimizer)
    sampler = CropSampler(
        training, crop=recipe.crop, batch_size=recipe.batch_size, seed=recipe.seed
    )
    weights = class_weights(training, len(classes))

    began = time.monotonic() - seconds
    columns = (
        TextColumn(f"{recipe.pooling} seed {recipe.seed}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )
    with Progress(*columns) as progress, (output / "log.jsonl").open("a") as log:
        task = progress.add_task("train", total=recipe.iterations, completed=start, loss=np.nan)
        for iteration in range(start, recipe.iterations):
            loss = train_one_iteration(model, optimizer, sampler, weights, recipe, iteration)
            progress.update(task, advance=1, loss=loss)
            if (iteration + 1) % 20 == 0:
                entry = {"iteration": iteration + 1, "loss": loss} | _alphas(model)
                log.write(json.dumps(entry) + "\n")
                log.flush()
            if (iteration + 1) % SAVE_EVERY == 0:
                _save_state(
                    output / "state.pt", model, optimizer, iteration + 1, time.monotonic() - began
                )
    seconds = time.monotonic() - began

    evaluation = evaluate(
        model,
        held_out,
        num_classes=len(classes),
        normalise=NORMALISATION,
        multiple=INPUT.multiple,
    )
    checkpoint = Checkpoint(
        network=recipe.network,
        pooling=recipe.pooling,
        classes=classes,
        input=INPUT,
        mean=NORMALISATION.mean,
        std=NORMALISATION.std,
        state_dict=model.state_dict(),
        training={
            "recipe": asdict(recipe),
            "pages": len(training),
            "seconds": round(seconds, 1),
            "held_out": evaluation.scores(classes) | {"pages": len(held_out)},
            "alpha": _alphas(model),
            **provenance(),
        },
    )
    checkpoint.save(finished)
    (output / "state.pt").unlink(missing_ok=True)
    return checkpoint


def train_one_iteration(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sampler: CropSampler,
    weights: Tensor,
    recipe: Recipe,
    iteration: int,
) -> float:
    """One step; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = group["scale"] * learning_rate(recipe, iteration)
    images, masks = sampler.batch(iteration)
    model.train()
    optimizer.zero_grad()
    x = NORMALISATION(images).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = model(x)
    loss = criterion(logits.float(), torch.from_numpy(masks).long(), weights)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def _alphas(model: nn.Module) -> dict[str, float]:
    """Mean bias of each side branch: where alpha stands when its input is silent."""
    return {
        f"alpha/{name}": round(float(module.point_bias.detach().mean()), 4)
        for name, module in model.named_modules()
        if isinstance(module, PPool2d)
    }


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Iterations and seconds already done."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["iteration"], state["seconds"]


def _save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, iteration: int, seconds: float
) -> None:
    partial = path.with_name(path.name + ".partial")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": iteration,
        "seconds": seconds,
    }
    torch.save(state, partial)
    partial.replace(path)
