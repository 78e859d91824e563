"""One training step of the small network, with P-pooling and with max pooling, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.measure import contest
from ppool.models import create_model

__all__ = ["training_step"]

BATCH, SIDE, CLASSES = 8, 256, 7


def training_step(rounds: int) -> list[dict[str, Any]]:
    """Milliseconds and ratio for one and two threads, as ``ppool train`` runs it."""
    before = torch.get_num_threads()
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        steps = {pooling: _step(pooling) for pooling in ("ppool", "max")}
        result = contest(steps, [("ppool", "max")], rounds=rounds, warmup=2)
        rows.append({"input": [BATCH, 3, SIDE, SIDE], "threads": threads, **result})
    torch.set_num_threads(before)
    return rows


def _step(pooling: str) -> Callable[[], None]:
    torch.manual_seed(0)
    model = create_model("unet_small", pooling=pooling, num_classes=CLASSES).train()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x = torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (BATCH, SIDE, SIDE))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
