"""Settings of one training run, and the learning-rate schedule as a pure function."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Recipe", "learning_rate"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's result, kept beside its checkpoint.

    ``crop`` is in pixels; ``learning_rate`` is AdamW's peak, of which the P-pooling side branches
    get ``branch_learning_rate_scale`` times as much (Section 4.1: 3). ``precision`` is that of the
    convolutions under autocast, ``float32`` or ``bfloat16``; weights stay float32.
    """

    network: str = "unet_small"
    pooling: str = "ppool"
    seed: int = 0
    iterations: int = 3000
    batch_size: int = 8
    crop: int = 256
    learning_rate: float = 4e-3
    weight_decay: float = 1e-4
    warmup_iterations: int = 100
    branch_learning_rate_scale: float = 3.0
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "crop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)!r}")
        if self.precision not in {"float32", "bfloat16"}:
            raise ValueError(f"precision: expected float32 or bfloat16, got {self.precision!r}")

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if the file holds something else.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not the settings of a run: {error}") from error


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to zero."""
    if iteration < recipe.warmup_iterations:
        return recipe.learning_rate * (iteration + 1) / recipe.warmup_iterations
    span = max(recipe.iterations - recipe.warmup_iterations, 1)
    done = min((iteration - recipe.warmup_iterations) / span, 1.0)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
