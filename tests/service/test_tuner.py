"""Which plan is chosen, from rates that the tests make up."""

import asyncio
from typing import Any

import pytest

from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores
from ppool.service.workers.inference import Segmenter
from ppool.service.workers.pool import Plan
from ppool.service.workers.tuner import Cell, cells_to_try, choose, measure


def test_what_the_settings_fix_is_not_tried_otherwise() -> None:
    settings = Settings(workers=3, threads=2, max_batch_size=5)
    assert cells_to_try(settings) == [Plan(3, 2, 5)]


def test_the_simplest_plan_comes_first() -> None:
    plans = cells_to_try(Settings(), thorough=True)
    assert plans[0] == Plan(usable_cores(), 1, 1)
    assert Plan(usable_cores(), 1, 8) in plans
    assert len(set(plans)) == len(plans)


def test_on_a_gpu_only_the_batch_size_is_open() -> None:
    plans = cells_to_try(Settings(devices="cuda:0"))
    assert [plan.batch for plan in plans] == [1, 2, 4, 8, 16, 32]
    assert {(plan.workers, plan.threads) for plan in plans} == {(1, 1)}


@pytest.mark.parametrize(("rate", "chosen"), [(110, 0), (130, 1)])
def test_a_plan_must_be_clearly_faster_than_the_first(rate: float, chosen: int) -> None:
    plans = [Plan(2, 1, 1), Plan(2, 1, 8)]
    assert choose([Cell(plans[0], 100), Cell(plans[1], rate)]) == plans[chosen]


def test_the_better_of_two_rounds_counts() -> None:
    plans = [Plan(2, 1, 1), Plan(1, 2, 1)]
    rates = iter([100.0, 400.0, 200.0, 300.0])

    async def run(_: Plan, seconds: float) -> float:
        assert seconds == 15.0
        return next(rates)

    cells = asyncio.run(measure(plans, run, 60))
    assert [cell.images_per_second for cell in cells] == [200, 400]


def test_a_slow_network_is_measured_once_and_no_large_batches() -> None:
    tried = []

    async def run(plan: Plan, _: float) -> float:
        tried.append(plan)
        return 0.1

    plans = [Plan(2, 1, 1), Plan(2, 1, 8)]
    cells = asyncio.run(measure(plans, run, 0.2))
    assert tried == plans[:1]
    assert choose(cells) == plans[0]


class Unmeasurable(Segmenter):
    """Runs what it is warmed up with, and no longer."""

    def probe(self, height: int, width: int, batch: int, seconds: float) -> tuple[float, float]:
        if seconds:
            raise MemoryError
        return super().probe(height, width, batch, seconds)


def test_plans_that_cannot_be_measured_do_not_keep_the_service_from_starting(
    serving: Any, segmenter: Segmenter
) -> None:
    served = Unmeasurable(segmenter.model, segmenter.session)
    with serving(served, max_batch_size=None, tune_seconds=0.1) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
