"""Who gets the next batch, with workers that answer when the test says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from ppool.service.answers import Answer, Encoded
from ppool.service.errors import Abandoned, WorkerLost
from ppool.service.metrics import Metrics
from ppool.service.scheduling.dispatch import Dispatcher, Done, Item, Key
from ppool.service.settings import Settings
from ppool.service.timing import Progress
from ppool.service.workers.launch import launch_process
from ppool.service.workers.messages import Run, Task
from ppool.service.workers.pool import Plan, WorkerPool
from ppool.service.workers.supervision import Worker

KEY = Key(0, "a", 8, 8, alpha=False)
# Added to the number of a model where an image is alone.
LONE = 100


@dataclass(eq=False)
class Desk:
    """A dispatcher whose workers note what they are sent; on a clock that stands still."""

    seconds: float = 0.01
    workers: int = 1
    batch: int = 1
    sent: list[tuple[str, asyncio.Future[Any]]] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    patience: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = Settings(
            workers=self.workers, threads=1, max_batch_size=self.batch, devices=["cpu"]
        )
        self.pool = WorkerPool(settings, launch_process, lambda: None)
        assert self.pool.plan == Plan(self.workers, 1, self.batch)
        for worker in self.pool.workers:
            worker.up = True
            worker.send = self._send  # type: ignore[method-assign]
        self.dispatcher = Dispatcher(self.pool, self, settings, Metrics(), lambda: 0.0)
        if self.seconds:
            self.dispatcher.learn(KEY, 1, self.seconds)

    def serves(self, handle: int) -> bool:
        return handle == KEY.handle

    def lone(self, _: Worker, handle: int) -> int:
        return handle + LONE

    def _send(self, message: object, patience: float) -> asyncio.Future[Any]:
        assert isinstance(message, Run)
        reply = asyncio.get_running_loop().create_future()
        self.sent.append(("".join(task.name for task in message.tasks), reply))
        self.handles.append(message.handle)
        self.patience.append(patience)
        return reply

    def push(self, name: str) -> Item:
        """Queue a photo and dispatch."""
        task = Task(name, b"", Answer(("mask",)))
        result: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        item = Item(task, 64, Progress(), result)
        self.dispatcher.push(KEY, item, 1, 60.0)
        self.dispatcher.dispatch()
        return item

    def names(self) -> list[str]:
        """What was sent so far."""
        return [name for name, _ in self.sent]

    async def answer(self, index: int) -> None:
        """Let a worker answer."""
        name, reply = self.sent[index]
        reply.set_result([Encoded(letter, {}) for letter in name])
        await asyncio.sleep(0)


def test_a_worker_soon_done_is_given_one_batch_ahead() -> None:
    async def story() -> None:
        desk = Desk()
        items = [desk.push(name) for name in "123"]
        assert desk.names() == ["1", "2"]
        assert [item.progress.stage for item in items[:2]] == ["infer", "queue"]
        await desk.answer(0)
        assert items[0].result.done()
        assert items[1].progress.stage == "infer"
        assert desk.names() == ["1", "2", "3"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(0.01, 10, 11), (2.0, 50, 51), (0.0, 60, 61)]
)
def test_a_worker_is_stuck_past_many_times_what_was_learned_or_when_nobody_waits(
    seconds: float, least: float, most: float
) -> None:
    async def story() -> None:
        desk = Desk(seconds=seconds)
        desk.push("1")
        assert least <= desk.patience[0] <= most

    asyncio.run(story())


@pytest.mark.parametrize("desk", [{"seconds": 1.0}, {"batch": 2}])
def test_nothing_goes_ahead_of_long_work_or_where_batches_pay(desk: dict[str, Any]) -> None:
    async def story() -> None:
        slow = Desk(**desk)
        for name in "123":
            slow.push(name)
        assert slow.names() == ["1"]

    asyncio.run(story())


def test_a_free_worker_is_preferred_to_one_soon_done() -> None:
    async def story() -> None:
        desk = Desk(workers=2)
        for name in "12":
            desk.push(name)
        assert [worker.busy for worker in desk.pool.workers] == [1, 1]
        for name in "345":
            desk.push(name)
        assert [worker.busy for worker in desk.pool.workers] == [2, 2]
        assert desk.names() == ["1", "2", "3", "4"]

    asyncio.run(story())


def test_a_photo_is_alone_while_nothing_else_is_to_be_done() -> None:
    async def story() -> None:
        desk = Desk(workers=2)
        desk.push("1")
        desk.push("2")
        await desk.answer(0)
        desk.push("3")
        await desk.answer(1)
        await desk.answer(2)
        desk.push("4")
        assert desk.handles == [LONE, 0, 0, LONE]

    asyncio.run(story())


def test_what_took_all_cores_is_not_taken_for_the_usual_cost() -> None:
    async def story() -> None:
        desk = Desk(seconds=40.0)
        desk.push("1")
        await desk.answer(0)
        desk.push("2")
        assert desk.dispatcher.queue_seconds() == 40.0

    asyncio.run(story())


def test_what_a_dead_worker_had_not_begun_is_not_held_against_it() -> None:
    async def story() -> None:
        desk = Desk()
        suspect, innocent = desk.push("1"), desk.push("2")
        for death in range(3):
            assert desk.names()[2 * death :] == ["1", "2"]
            for _, reply in desk.sent[2 * death :]:
                reply.set_exception(WorkerLost("cpu-0"))
            await asyncio.sleep(0)
        assert isinstance(suspect.result.exception(), Abandoned)
        assert (innocent.attempts, innocent.result.done()) == (0, False)

    asyncio.run(story())
