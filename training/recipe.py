"""Settings of one training run, and the learning-rate schedule as a pure function."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ppool import PPool2d
from ppool.models import PLACES, list_poolings, original_pooling
from ppool.training.atomic import write_whole

__all__ = ["FINE_TUNING", "PAGES", "PHOTOGRAPHS", "RECIPES", "Recipe", "learning_rate"]

_CHOICES = {
    "task": ("segmentation", "classification"),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "step", "poly"),
    "loss": ("balanced", "dice", "mean", "sum"),
    "augmentation": ("exposure", "mirror"),
    "precision": ("float32", "bfloat16", "float16"),
    "ppool_place": PLACES,
}
_POSITIVE = ("iterations", "batch_size", "accumulate", "crop", "multiple", "max_side")
_UNIT = ("alpha_init", "alpha_min", "alpha_max", "input_scale", "offset_scale")
_OPTIONAL = ("bias_learning_rate_scale", *_UNIT)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's result, kept as JSON beside its checkpoint.

    Attributes:
        dataset: Name of the data set, for whoever runs it.
        network: A name of :func:`ppool.models.list_models`.
        pooling: What :func:`ppool.models.create_model` takes: one name, or one for each stage.
        task: ``segmentation``, or ``classification`` of whole crops by the mean of their logits,
            which is how a small network gets weights to fine-tune from.
        weights: File for :func:`ppool.models.load_weights` to start from; ``None`` starts at
            random.
        seed: Decides initial weights, batches and dropout.
        iterations: Optimiser steps.
        batch_size: Crops a step, over all processes and accumulated parts.
        accumulate: Parts in which a batch is computed, for when it does not fit in memory.
        crop: Side of a crop, in pixels.
        augmentation: ``exposure`` varies light and colour; ``mirror`` flips left and right.
        optimizer: ``adamw``, or ``sgd`` with ``momentum``.
        momentum: Of ``sgd``.
        learning_rate: The peak.
        weight_decay: Of everything but biases, norms and side branches: decay would pull alpha,
            which rests on a bias, to 0.
        schedule: ``cosine`` to zero, ``step`` (a tenth from ``step_at`` on) or ``poly`` (falls to
            zero as power 0.9 of the time left, as DeepLab).
        step_at: Iteration at which ``step`` steps.
        warmup_iterations: Length of the linear rise at the start.
        branch_learning_rate_scale: Factor for P-pooling's side branches (Section 4.1: 3).
        bias_learning_rate_scale: Factor for the bias alone that each branch ends in, on which alpha
            rests; ``None`` is that of the branch. Alpha's gradient falls as 1 / alpha ** 2, so from
            20 it hardly moves at the trunk's rate.
        head_learning_rate_scale: Factor for layers no pretrained network has, such as the
            classifier; their biases take twice that, as in DeepLab's settings and those of
            :data:`AUTHOR`.
        loss: ``mean`` over labelled pixels; ``sum`` over them, averaged over crops, as Caffe's
            unnormalised loss; ``balanced`` is ``mean`` with rare classes weighted up; ``dice`` is
            ``mean`` plus the Dice loss of the images that are computed together.
        precision: Of the convolutions under autocast. Weights, P-pooling's arithmetic and the loss
            stay float32.
        ppool_place: ``after_relu`` or ``before_relu``; see :func:`ppool.models.create_model`.
        alpha_init: Where alpha starts; ``None`` leaves it to the network.
        alpha_min: Its lower clip, likewise.
        alpha_max: Its upper clip, likewise.
        input_scale: Factor on the branch's input, likewise.
        offset_scale: Multiple of each channel's mean at which its zeros count, likewise.
        alpha_gradient_scale: Factor on alpha's gradient, which falls as 1 / alpha ** 2.
        detach_branch: Keep the side branch's gradient out of the trunk.
        mean: Of RGB in [0, 1].
        std: Of RGB in [0, 1].
        multiple: Height and width are padded to multiples of this in evaluation and service.
        max_side: Images with a longer side are resized to it in evaluation and service; crops are
            cut from images as they are.
    """

    dataset: str = "pages"
    network: str = "unet_small"
    pooling: str | Mapping[str, str] = "ppool"
    task: str = "segmentation"
    weights: str | None = None
    seed: int = 0
    iterations: int = 3000
    batch_size: int = 8
    accumulate: int = 1
    crop: int = 256
    augmentation: str = "exposure"
    optimizer: str = "adamw"
    momentum: float = 0.9
    learning_rate: float = 4e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    step_at: int = 6000
    warmup_iterations: int = 100
    branch_learning_rate_scale: float = 3.0
    bias_learning_rate_scale: float | None = None
    head_learning_rate_scale: float = 1.0
    loss: str = "balanced"
    precision: str = "bfloat16"
    ppool_place: str = "after_relu"
    alpha_init: float | None = None
    alpha_min: float | None = None
    alpha_max: float | None = None
    input_scale: float | None = None
    offset_scale: float | None = None
    alpha_gradient_scale: float = 1.0
    detach_branch: bool = True
    mean: tuple[float, float, float] = (0.6, 0.6, 0.6)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    multiple: int = 16
    max_side: int = 1024

    @property
    def ppool_options(self) -> dict[str, float]:
        """What differs from the network's own settings of :class:`ppool.PPool2d`."""
        return {name: getattr(self, name) for name in _UNIT if getattr(self, name) is not None}

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            # JSON has no tuples.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in fields(self):
            kind, value = type(field.default), getattr(self, field.name)
            # A pooling may be a mapping, and None is where a setting is left to the network.
            allowed = (float, int) if kind is float else kind
            if kind in {int, float, bool} and not isinstance(value, allowed):
                raise ValueError(f"{field.name}: expected {kind.__name__}, got {value!r}")
        for name in _OPTIONAL:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise ValueError(f"{name}: expected a number or null, got {value!r}")
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                expected = " or ".join(choices)
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")
        stages = original_pooling(self.network)
        chosen = self.pooling
        if isinstance(chosen, str):
            chosen = dict.fromkeys(stages, chosen)
        if chosen.keys() != stages.keys() or not set(chosen.values()) <= set(list_poolings()):
            raise ValueError(
                f"pooling: expected one of {', '.join(list_poolings())}, or one for each of "
                f"{', '.join(stages)}; got {self.pooling!r}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate: expected a divisor of batch_size {self.batch_size}, "
                f"got {self.accumulate!r}"
            )

    def changed(self, assignments: Sequence[str]) -> Recipe:
        """With settings given as ``name=value``, such as ``alpha_init=3`` or ``loss=mean``.

        Raises:
            ValueError: if there is no such setting, or the value is none of its.
        """
        changes = {}
        for assignment in assignments:
            name, _, text = assignment.partition("=")
            if name not in {field.name for field in fields(self)}:
                known = ", ".join(field.name for field in fields(self))
                raise ValueError(f"settings: expected one of {known}; got {assignment!r}")
            try:
                changes[name] = json.loads(text)
            except json.JSONDecodeError:
                changes[name] = text
        return replace(self, **changes)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_whole(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read what :meth:`save` wrote; a setting that it lacks has its default.

        Raises:
            ValueError: if the file holds something else.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not the settings of a run: {error}") from error


PAGES = Recipe(
    network="unet_pages",
    iterations=5000,
    batch_size=16,
    crop=224,
    learning_rate=3e-3,
    loss="dice",
    multiple=32,
    max_side=1792,
)
"""The recipe of the model that ships: from scratch, on drawn pages."""

FINE_TUNING = Recipe(
    dataset="voc-aug",
    network="vgg16",
    iterations=10_000,
    batch_size=20,
    crop=321,
    augmentation="mirror",
    optimizer="sgd",
    learning_rate=2e-7,
    weight_decay=5e-4,
    schedule="step",
    step_at=6_000,
    warmup_iterations=0,
    head_learning_rate_scale=10.0,
    loss="sum",
    precision="float32",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""Section 4.1 for VGG-16 on PASCAL VOC; ``weights`` is torchvision's file.

The paper states rate, iterations, step and the factor 3, for this network and data set alone; for
its other networks and sets it says to "follow the general fine-tuning practice", and the tables
here take these numbers for all of Section 4.1. Batch, crop, momentum, decay and the classifier's
factor 10 are those of the first author's later code for this network
(github.com/kfxw/mydev-pytorch-semantic-segmentation, ``test_solver_cfg.py`` in the version that has
``epoch_iters = 602``). Alpha's scale of 100, start of 20 and limit of 35 are the defaults of
:class:`ppool.PPool2d`.

A rate of 2e-7 only makes sense for a loss summed over pixels. A crop of 321 x 321 has 103,041 of
them, so where all carry a label it is 2e-7 * 103,041 = 0.0206 for a ``mean`` loss; ``sum`` gives
a crop with fewer labelled pixels less weight, ``mean`` the same.

Both numbers, 2e-7 and the branch's 100, were chosen for Caffe's VGG-16, which sees BGR in 0..255.
From torchvision's file features are some 58 times smaller, and so is what reaches the branch;
``input_scale=5800`` or Keras' file, which is Caffe's, gives it what it had there.
"""

AUTHOR = replace(
    FINE_TUNING,
    bias_learning_rate_scale=180.0,
    branch_learning_rate_scale=1.0,
    alpha_init=30.0,
    alpha_min=1.0,
    alpha_max=50.0,
    input_scale=1.0,
    alpha_gradient_scale=3.0,
    detach_branch=False,
)
"""As :data:`FINE_TUNING`, with P-pooling as in the first author's later code at c1d4aaa.

From github.com/kfxw/mydev-pytorch-semantic-segmentation, ``lib/ppooling/p_pooling_module.py`` and
``train_deeplabv3_xception_p_pooling.py`` of that commit: alpha from 30 in [1, 50], the branch's
input as it is, its bias at 180 times the trunk's rate and its convolutions at the trunk's,
alpha's gradient times 3, the branch not detached (its ``detach()`` is without effect there). Not
taken over: PReLU at 100 times the rate, a random start of the branch's last convolution, and
powers by a bit trick; later commits differ again.
"""

PHOTOGRAPHS = replace(
    FINE_TUNING,
    dataset="folder",
    network="squeezenet_fcn",
    batch_size=8,
    crop=240,
    loss="mean",
    precision="bfloat16",
    iterations=800,
    optimizer="adamw",
    schedule="cosine",
    learning_rate=6e-4,
    weight_decay=1e-4,
    warmup_iterations=50,
    multiple=16,
    bias_learning_rate_scale=100.0,
    alpha_init=PPool2d.SOFT["alpha_init"],
    offset_scale=PPool2d.SOFT["offset_scale"],
)
"""Fine-tuning on photographs as in ``docs/photographs.md``; other poolings take it as well.

``weights`` is SqueezeNet v1.0 as released or torchvision's ``squeezenet1_0``. P-pooling is in the
form that was best on CamVid's val: behind the ReLU, from ``PPool2d.SOFT``, its bias at 100 times
the trunk's rate.
"""

OWN = Recipe(dataset="folder", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""A start for own photos that ``ppool train init`` looked at: the small network, from scratch."""

RECIPES = {
    "own": OWN,
    "pages": PAGES,
    "photographs": PHOTOGRAPHS,
    "paper": FINE_TUNING,
    "author": AUTHOR,
}


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """The rate of one iteration: a linear warm-up to the peak, then the recipe's schedule."""
    peak = recipe.learning_rate
    if iteration < recipe.warmup_iterations:
        return peak * (iteration + 1) / recipe.warmup_iterations
    if recipe.schedule == "step":
        return peak * (0.1 if iteration >= recipe.step_at else 1.0)
    span = max(recipe.iterations - recipe.warmup_iterations, 1)
    done = min((iteration - recipe.warmup_iterations) / span, 1.0)
    if recipe.schedule == "poly":
        return float(peak * (1 - done) ** 0.9)
    return peak * 0.5 * (1 + math.cos(math.pi * done))
