"""What a run starts from: the network of its recipe, and what comes with the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import ppool
from ppool import PPool2d
from ppool.feeding import Normalisation
from ppool.models import Checkpoint, create_model, list_models, settle_norms
from ppool.models.exported import read_onnx
from ppool.training.crops import CropSampler
from ppool.training.dataset import SegmentationDataset
from ppool.training.recipe import Recipe

__all__ = ["SHIPPED", "settings_with", "start_model", "weights_file"]

SHIPPED = "shipped"


def weights_file(name: str) -> Path:
    """A file of weights; ``shipped`` is the model that ships."""
    if name == SHIPPED:
        return Path(ppool.__file__).parent / "service" / "assets" / "pages.onnx"
    return Path(name)


def settings_with(weights: Path) -> dict[str, Any]:
    """The settings of a recipe that such weights were trained with, as far as the file says.

    Others' weights, which say nothing, give none.

    Raises:
        ValueError: if it is an ONNX file that no run can start from.
        FileNotFoundError: if there is no such file.
    """
    if weights.suffix == ".onnx":
        description, constants = read_onnx(weights)
        mean, std = (
            tuple(round(value / 255, 6) for value in constants[name].flatten().tolist())
            for name in ("mean", "deviation")
        )
        network, policy = description.network, description.input
    else:
        try:
            checkpoint = Checkpoint.load(weights)
        except ValueError:
            return {}
        network, policy = checkpoint.network, checkpoint.input
        mean, std = tuple(checkpoint.mean), tuple(checkpoint.std)
    # `export_model` knows the class alone.
    names = {name.replace("_", ""): name for name in list_models()}
    return {
        "network": names.get(network.replace("_", "").lower(), network),
        "mean": mean,
        "std": std,
        "multiple": policy.multiple,
        "max_side": policy.max_side,
    }


def start_model(recipe: Recipe, training: SegmentationDataset) -> nn.Module:
    """The network of a recipe, with its weights, before the first step."""
    torch.manual_seed(recipe.seed)
    model = create_model(
        recipe.network,
        pooling=recipe.pooling,
        num_classes=len(training.classes),
        ppool_place=recipe.ppool_place,
        ppool_options=recipe.ppool_options,
        weights=recipe.weights,
    )
    for pool in model.modules():
        if isinstance(pool, PPool2d):
            pool.detach_branch = recipe.detach_branch
            pool.alpha_gradient_scale = recipe.alpha_gradient_scale
    if recipe.weights is not None and recipe.weights.endswith(".onnx"):
        images, _ = CropSampler(training, recipe).batch(0)
        fed = Normalisation(recipe.mean, recipe.std)(images)
        settle_norms(model, torch.from_numpy(fed))
    return model
