"""Weights from a local file, by name, with an account of every tensor that did not fit."""

from __future__ import annotations

import logging
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ppool.models._layers import PretrainedNetwork
from ppool.models.exported import exported_state

__all__ = ["LoadReport", "load_weights"]

logger = logging.getLogger(__name__)

# Files written before PyTorch 0.4.1 have no such counter, and no evaluation reads it.
_ALLOWED_MISSING = "num_batches_tracked"


@dataclass
class LoadReport:
    """What :func:`load_weights` did with each tensor of the file and of the network.

    ``missing`` are the network's tensors left as they were: branches of poolings, the new head,
    batch norm's counters. ``unexpected`` are the file's that the network has no place for, such as
    the classifier of 1,000 classes. ``mismatched`` fit by name but not by shape and were not
    loaded; ``reshaped`` were loaded without their axes of length 1.
    """

    path: Path
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, str] = field(default_factory=dict)
    reshaped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.loaded)} tensors loaded"]
        lines += [f"missing     {key}: keeps its own start" for key in self.missing]
        lines += [f"unexpected  {key}: not used" for key in self.unexpected]
        lines += [f"mismatched  {key}: {why}; not used" for key, why in self.mismatched.items()]
        lines += [f"reshaped    {key}: {how}" for key, how in self.reshaped.items()]
        return "\n".join(lines)


def _read(path: Path, model: nn.Module) -> dict[str, Tensor]:
    if path.suffix == ".onnx":
        return exported_state(path, model)
    if path.suffix in {".h5", ".hdf5"}:
        return _read_hdf5(path)
    return _read_npz(path) if path.suffix == ".npz" else _read_torch(path)


def _read_npz(path: Path) -> dict[str, Tensor]:
    """NumPy's archive: the arrays of numbers in it, by name."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            arrays = {key: archive[key] for key in archive.files}
    except (AttributeError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected arrays written by numpy.savez") from error
    return {key: torch.from_numpy(a) for key, a in arrays.items() if a.dtype.kind in "fiu"}


def _read_hdf5(path: Path) -> dict[str, Tensor]:
    """HDF5 as Keras writes it: the arrays of numbers in it, by path."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: reading HDF5 needs h5py: pip install 'ppool[train]'") from error
    found: dict[str, Tensor] = {}

    def take(name: str, entry: h5py.Group | h5py.Dataset) -> None:
        if isinstance(entry, h5py.Dataset) and entry.dtype.kind in "fiu":
            found[name] = torch.from_numpy(np.asarray(entry[()]))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: expected an HDF5 file, as Keras writes") from error
    return found


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: expected a state dict written by torch.save") from error
    if isinstance(document, Mapping) and isinstance(document.get("state_dict"), Mapping):
        document = document["state_dict"]
    if not isinstance(document, Mapping):
        raise ValueError(f"{path}: expected a state dict, got {type(document).__name__}")
    return {key: value for key, value in document.items() if isinstance(value, Tensor)}


def _without_ones(tensor: Tensor) -> list[int]:
    return [length for length in tensor.shape if length != 1]


def _may_start_anew(model: nn.Module, key: str) -> bool:
    if not isinstance(model, PretrainedNetwork):
        return False
    fresh = (*model.original_pooling, *model.untrained)
    return key.endswith(_ALLOWED_MISSING) or key.startswith(tuple(f"{name}." for name in fresh))


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Load a state dict into ``model`` by name, whole or not at all.

    The file may be the model's own, or of the published layout that the network's class names.
    Axes of length 1 do not count: old files hold batch-norm tensors as (1, C). The report is logged
    as a warning if it names any tensor.

    Args:
        model: A network of :func:`ppool.models.create_model`.
        path: A file written by ``torch.save``, a state dict or a document holding ``state_dict``;
            NumPy's ``.npz`` or Keras' ``.h5``, in a layout that the network names; or an ``.onnx``
            file that was exported from such a network, whose batch norms then do no more than
            shift until :func:`ppool.models.settle_norms` sees images.

    Returns:
        Every tensor that is missing, unexpected, mismatched or reshaped. Print it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no such thing, or lacks a tensor of the trunk in the right shape;
            the message is the whole report.
    """
    report = LoadReport(Path(path))
    places: dict[str, Tensor] = dict(model.state_dict())
    found: dict[str, Tensor] = {}
    tensors = _read(report.path, model)
    own = {name: (name, tensor) for name, tensor in tensors.items()}
    converted = model.convert(tensors) if isinstance(model, PretrainedNetwork) else own
    for name, (theirs, value) in converted.items():
        key = name if name in places else theirs
        if key not in places or key in found:
            report.unexpected.append(name)
            continue
        expected, got = list(places[key].shape), list(value.shape)
        if _without_ones(places[key]) != _without_ones(value):
            report.mismatched[key] = f"expected {expected}, got {got}"
            continue
        if expected != got:
            report.reshaped[key] = f"{got} to {expected}"
        found[key] = value.reshape(expected)
    report.loaded = list(found)
    report.missing = [key for key in places if key not in found and key not in report.mismatched]
    needed = [key for key in places if key not in found and not _may_start_anew(model, key)]
    if needed:
        raise ValueError(
            f"weights: expected every tensor of the trunk of {type(model).__name__}, found none "
            f"that fits {', '.join(needed)}\n{report}"
        )
    with torch.no_grad():
        for key, value in found.items():
            places[key].copy_(value)
    if report.missing or report.unexpected or report.mismatched or report.reshaped:
        logger.warning("%s", report)
    return report
