"""A checkpoint: weights with everything needed to rebuild, describe and export the network."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppool.metadata import FORMAT, NetworkDescription
from ppool.models._registry import create_model

__all__ = ["Checkpoint"]

# What torch.load and the reading of its result raise on files of another kind, or cut off.
_OTHER_FILES = (
    AttributeError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    pickle.UnpicklingError,
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(NetworkDescription):
    """Weights of a network of :func:`ppool.models.create_model` and what they were trained for.

    Attributes:
        pooling: Of every stage, or by the stage's name.
        mean: Of RGB images scaled to [0, 1], by which they are normalised.
        std: Likewise.
        state_dict: The weights.
        ppool_place: Where P-pooling stands.
        ppool_options: Of every P-pooling.
    """

    pooling: str | Mapping[str, str]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    state_dict: Mapping[str, Tensor]
    ppool_place: str = "after_relu"
    ppool_options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The network with these weights, in evaluation mode on the CPU.

        Raises:
            ValueError: if the weights are not the network's, as another version wrote them.
        """
        model = create_model(
            self.network,
            pooling=self.pooling,
            num_classes=len(self.classes),
            ppool_place=self.ppool_place,
            ppool_options=self.ppool_options,
        )
        try:
            model.load_state_dict(dict(self.state_dict))
        except RuntimeError as error:
            raise ValueError(f"checkpoint: expected weights of {self.network}: {error}") from error
        return model.eval()

    def save(self, path: str | Path) -> None:
        """Write to ``path`` whole or not at all."""
        path = Path(path)
        document = {"format": FORMAT, **asdict(self), "state_dict": dict(self.state_dict)}
        partial = path.with_name(path.name + ".partial")
        torch.save(document, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint written by :meth:`save`.

        Raises:
            ValueError: if the file is not one.
            FileNotFoundError: if it does not exist.
        """
        try:
            return cls.from_document(torch.load(path, map_location="cpu", weights_only=True))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except _OTHER_FILES as error:
            raise ValueError(f"{path}: not a checkpoint written by ppool train") from error
