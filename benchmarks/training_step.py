"""One training step of networks with P-pooling and with max pooling, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.measure import contest
from ppool.models import create_model

__all__ = ["training_step"]

CLASSES = 7
INPUTS = {
    "unet_small": (8, 3, 256, 256),
    "squeezenet_fcn": (4, 3, 240, 240),
    "vgg16": (2, 3, 160, 160),
    "resnet50": (2, 3, 160, 160),
}
"""Crops of a step; of the large networks few and small ones, or a round would take a minute."""


def training_step(rounds: int) -> list[dict[str, Any]]:
    """Milliseconds and ratio in both precisions on one and two threads, as ``ppool train`` runs."""
    before = torch.get_num_threads()
    rows = []
    for network, size in INPUTS.items():
        for precision in ("bfloat16", "float32"):
            for threads in (1, 2):
                torch.set_num_threads(threads)
                steps = {
                    pooling: _step(network, pooling, precision) for pooling in ("ppool", "max")
                }
                result = contest(steps, [("ppool", "max")], rounds=rounds, warmup=2)
                about = {"network": network, "precision": precision, "input": list(size)}
                rows.append({**about, "threads": threads, **result})
    torch.set_num_threads(before)
    return rows


def _step(network: str, pooling: str, precision: str) -> Callable[[], None]:
    torch.manual_seed(0)
    model = create_model(network, pooling=pooling, num_classes=CLASSES).train()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    size = INPUTS[network]
    x = torch.randn(size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (size[0], *size[2:]))
    half = torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext()

    def step() -> None:
        optimizer.zero_grad()
        with half:
            logits = model(x)
        logits = F.interpolate(logits.float(), size[2:], mode="bilinear", align_corners=False)
        F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
