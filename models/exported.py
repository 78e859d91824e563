"""Weights read back from an exported file, whose batch norms are folded into convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppool.metadata import METADATA_KEY, ModelMetadata
from ppool.module import PPool2d

__all__ = ["exported_state", "read_onnx", "settle_norms"]

# What the exporter puts before the names of the network's parameters, and behind the name of a
# convolution's weights for the bias that it had from a batch norm.
PREFIX, FOLDED = "network.", "_bias"


def read_onnx(path: Path) -> tuple[ModelMetadata, dict[str, Tensor]]:
    """What an exported file says of itself, and its constants in float32, by name.

    Raises:
        ValueError: if it is no file of :func:`ppool.export.export_model`, or of 8 bits.
        FileNotFoundError: if there is none.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: reading ONNX needs onnx: pip install 'ppool[export]'") from error
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise ValueError(f"{path}: expected an ONNX file, got something else") from error
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in texts:
        raise ValueError(
            f"{path}: expected a file of ppool export; a network of others starts from its own "
            "PyTorch weights"
        )
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = {
        n: torch.from_numpy(a.copy()).float() for n, a in arrays.items() if a.dtype.kind == "f"
    }
    if not any(name.startswith(PREFIX) and name.endswith(".weight") for name in found):
        raise ValueError(
            f"{path}: holds no weights that can be trained; start from the file of ppool export "
            "itself, not from an adopted or quantised one"
        )
    return ModelMetadata.from_json(texts[METADATA_KEY]), found


def exported_state(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a network like ``model`` that does what the file does.

    Where a batch norm was folded, it shifts and does nothing else; :func:`settle_norms` makes it
    fit for training.

    Raises:
        ValueError: if the file was not exported from such a network.
        FileNotFoundError: if there is none.
    """
    description, constants = read_onnx(path)
    wanted = type(model).__name__
    if description.network.replace("_", "").lower() != wanted.lower():
        raise ValueError(
            f"{path}: expected weights of {wanted}, got those of {description.network}; choose "
            "that with --network"
        )
    found = {
        name.removeprefix(PREFIX): value
        for name, value in constants.items()
        if name.startswith(PREFIX)
    }
    for stage, layer in model.named_modules():
        if isinstance(layer, PPool2d):  # it stands in a wrapper when it is traced
            inside = f"{stage}.pool."
            for name in [name for name in found if name.startswith(inside)]:
                found[f"{stage}.{name.removeprefix(inside)}"] = found.pop(name)
    conv = ""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            conv = name
            _of_one_pixel(found, name, layer)
        elif isinstance(layer, nn.BatchNorm2d) and f"{name}.weight" not in found and conv:
            shift = found.pop(f"{conv}.weight{FOLDED}", torch.zeros(layer.num_features))
            found |= {f"{name}.{key}": value for key, value in _shifting(layer, shift).items()}
            conv = ""
    for name, layer in model.named_modules():
        # The exporter leaves out a bias of zeros.
        if isinstance(layer, nn.Conv2d) and layer.bias is not None and f"{name}.weight" in found:
            found.setdefault(f"{name}.bias", torch.zeros_like(layer.bias))
    return found


def _of_one_pixel(found: dict[str, Tensor], name: str, layer: nn.Conv2d) -> None:
    """The weights themselves where the exporter repeated them for the pixels of a block."""
    weight = found.get(f"{name}.weight")
    if weight is None or weight.dim() != layer.weight.dim():
        return
    inputs, high, wide = layer.weight.shape[1:]
    repeated = weight.shape[1] // inputs
    pixels = repeated * (weight.shape[2] // high) * (weight.shape[3] // wide)
    if pixels > 1:
        found[f"{name}.weight"] = weight[::pixels, ::repeated, :high, :wide]
        if (bias := found.get(f"{name}.bias")) is not None:
            found[f"{name}.bias"] = bias[::pixels]


def _shifting(norm: nn.BatchNorm2d, shift: Tensor) -> dict[str, Tensor]:
    ones = torch.ones(norm.num_features)
    return {
        "weight": ones,
        "bias": shift,
        "running_mean": torch.zeros(norm.num_features),
        "running_var": ones - norm.eps,
        "num_batches_tracked": torch.zeros((), dtype=torch.long),
    }


@torch.no_grad()
def settle_norms(model: nn.Module, images: Tensor) -> None:
    """Give every batch norm the statistics of ``images``, and change nothing of what it does.

    Weights of an exported file have lost them, and without them the first step of training, which
    normalises by its own batch, would begin with another network.

    Shape:
        ``images`` are [N, 3, H, W], normalised as in training.
    """

    def settle(norm: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 (registered on no other)
        mean_had, var_had = norm.running_mean, norm.running_var
        assert mean_had is not None and var_had is not None  # noqa: S101, PT018 (all have them)
        var, mean = torch.var_mean(given[0], (0, 2, 3), correction=0)
        factor = norm.weight / (var_had + norm.eps).sqrt()
        norm.bias.add_((mean - mean_had) * factor)
        norm.weight.copy_(factor * (var + norm.eps).sqrt())
        mean_had.copy_(mean)
        var_had.copy_(var)

    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    training = model.training
    try:
        model.eval()(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
