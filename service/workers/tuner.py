"""How many workers, threads and images a batch pay: measured on the workers themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores

__all__ = ["Cell", "Plan", "cells_to_try", "choose", "measure"]

# Machines drift by a tenth, and short measurements by as much again; less than this is no reason
# to leave the simplest setting.
_WORTH = 1.2
_ROUNDS = 2


@dataclass(frozen=True)
class Plan:
    """Workers on each device, threads in each inference, images in a batch at most."""

    workers: int
    threads: int
    batch: int


@dataclass(frozen=True)
class Cell:
    """What a plan reached."""

    plan: Plan
    images_per_second: float


# Runs batches of one size on some workers with some threads: images a second over all of them.
Run = Callable[[Plan, float], Coroutine[Any, Any, float]]


def cells_to_try(settings: Settings, *, thorough: bool = False) -> list[Plan]:
    """The plans worth measuring, the simplest first; what the settings fix stays fixed.

    With ``thorough`` every power of two is tried, otherwise the ends of each scale.
    """
    gpu = settings.on_gpu
    cores = 1 if gpu else usable_cores()
    threads = _scale(cores, thorough) if settings.threads is None else (settings.threads,)
    most = 32 if gpu else 8
    batches = (
        _scale(most, thorough or gpu)
        if settings.max_batch_size is None
        else (settings.max_batch_size,)
    )
    return [
        Plan(settings.workers or max(cores // count, 1), count, batch)
        for count in threads
        for batch in batches
    ]


async def measure(plans: Sequence[Plan], run: Run, seconds: float) -> list[Cell]:
    """Measure the plans in turn, twice, and keep the better: what else runs here only slows down.

    What would not fit into ``seconds`` is left out, but never the first plan.
    """
    end = time.monotonic() + seconds
    best: dict[Plan, float] = {}
    for _ in range(_ROUNDS):
        for plan in plans:
            # One batch to warm up and one to measure, on every worker.
            needed = 2 * plan.workers * plan.batch / max(best.values()) if best else 0.0
            if needed <= end - time.monotonic():
                rate = await run(plan, seconds / (_ROUNDS * len(plans)))
                best[plan] = max(rate, best.get(plan, 0.0))
    return [Cell(plan, best[plan]) for plan in plans if plan in best]


def choose(cells: Sequence[Cell]) -> Plan:
    """The fastest plan, or the first where no other is clearly faster."""
    best = max(cells, key=lambda cell: cell.images_per_second)
    first = cells[0]
    return best.plan if best.images_per_second > _WORTH * first.images_per_second else first.plan


def _scale(most: int, whole: bool) -> tuple[int, ...]:
    powers = tuple(1 << power for power in range(most.bit_length()) if 1 << power <= most)
    return tuple(sorted({*powers, most})) if whole else tuple(sorted({1, most}))
