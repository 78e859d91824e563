"""How many workers, threads and images a batch pay: measured on the workers themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores
from ppool.service.workers.pool import Plan, WorkerPool
from ppool.service.workers.registry import ModelRegistry

__all__ = ["Cell", "Tuner", "cells_to_try", "choose", "measure"]

# Machines drift by a tenth, and short measurements by as much again; less than this is no reason
# to leave the simplest setting.
_WORTH = 1.2
_ROUNDS = 2


@dataclass(frozen=True)
class Cell:
    """What a plan reached."""

    plan: Plan
    images_per_second: float


# Runs batches of one size on some workers with some threads: images a second over all of them.
Run = Callable[[Plan, float], Coroutine[Any, Any, float]]


class Tuner:
    """Measures what the settings leave open on the first model, and sets the pool to the best.

    Attributes:
        cells: What was measured.
    """

    def __init__(self, settings: Settings, pool: WorkerPool, registry: ModelRegistry) -> None:
        self._settings = settings
        self._pool = pool
        self._registry = registry
        self.cells: list[Cell] = []

    async def tune(self, seconds: float, *, thorough: bool = False) -> None:
        """Measure for about so long; ``thorough`` tries more plans.

        Raises:
            WorkerLost, ValueError: if a worker does not get to the end; nothing is changed then.
        """
        plans = cells_to_try(self._settings, thorough=thorough)
        if len(plans) > 1:
            self.cells = await measure(plans, self._try, seconds)
            await self._adopt(choose(self.cells))

    async def _try(self, plan: Plan, seconds: float) -> float:
        workers = self._pool.workers[: plan.workers]
        return await self._registry.measure(plan, workers, seconds)

    async def _adopt(self, plan: Plan) -> None:
        before, self._pool.plan = self._pool.plan, plan
        self._pool.keep(plan.workers)
        if plan.threads != before.threads:
            await self._registry.load_anew()
        elif plan.batch != before.batch:
            await self._registry.warm_up()


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


async def measure(
    plans: Sequence[Plan], run: Run, seconds: float, clock: Callable[[], float] = time.monotonic
) -> list[Cell]:
    """Measure the plans in turn, twice, and keep the better: what else runs here only slows down.

    What would not fit into ``seconds`` is left out, but never the first plan.
    """
    end = clock() + seconds
    best: dict[Plan, float] = {}
    for _ in range(_ROUNDS):
        for plan in plans:
            # One batch to warm up and one to measure, on every worker.
            needed = 2 * plan.workers * plan.batch / max(best.values()) if best else 0.0
            if needed <= end - clock():
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
