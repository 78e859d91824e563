"""Workers that die, hang, or never start, and what becomes of what they were given."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from ppool.service.errors import WorkerLost
from ppool.service.workers.launch import Launched
from ppool.service.workers.messages import Drop, Ping, Run, frame, read
from ppool.service.workers.supervision import Worker
from tests.service.traffic import PATIENCE_SECONDS


class Puppet:
    """A process that answers what it is told to, until it is killed."""

    pid = 0

    def __init__(self, *ends: socket.socket, answers: Callable[[object], bool]) -> None:
        self._ends = ends
        self.killed = False
        self._threads = [threading.Thread(target=self._live, args=(end, answers)) for end in ends]
        for thread in self._threads:
            thread.start()

    def _live(self, end: socket.socket, answers: Callable[[object], bool]) -> None:
        def exactly(count: int) -> bytes:
            content: bytes = messages.read(count)
            if len(content) < count:
                raise EOFError
            return content

        with suppress(OSError, EOFError), end, end.makefile("rb") as messages:
            while True:
                number, message = read(exactly)
                if answers(message):
                    end.sendall(b"".join(frame(number, None)))

    def kill(self) -> None:
        self.killed = True

    def poll(self) -> int | None:
        """Like a process it ends when its sockets are closed, or of a signal."""
        return (-9 if self.killed else 0) if self.ended() else None

    def ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)


@dataclass
class Stage:
    """A worker whose processes are puppets; the first ones answer as the scripts say."""

    scripts: list[Callable[[object], bool] | Exception]
    puppets: list[Puppet] = field(default_factory=list)

    def launch(self, _: int, __: str) -> Launched:
        script = self.scripts.pop(0) if self.scripts else willing
        if isinstance(script, Exception):
            raise script
        (work, theirs), (control, others) = socket.socketpair(), socket.socketpair()
        self.puppets.append(Puppet(theirs, others, answers=script))
        return Launched(self.puppets[-1], work, control)

    def play(self, story: Callable[[Worker, asyncio.Event], Awaitable[None]]) -> Worker:
        """Tell a story with a worker, and what is set whenever one has come up."""
        worker = Worker("cpu-0", "cpu", 1, self.launch)
        worker.tick_seconds = 0.02

        async def whole() -> None:
            up = asyncio.Event()

            async def prepare(_: Worker) -> None:
                await worker.send(Drop(0), 60)

            supervising = asyncio.create_task(
                worker.supervise(prepare, lambda: up.set() if worker.up else None)
            )
            telling = asyncio.ensure_future(story(worker, up))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait((supervising, telling), return_when=asyncio.FIRST_COMPLETED)
                if supervising.done():
                    telling.cancel()
                else:
                    await telling
                worker.close()
                await supervising

        try:
            asyncio.run(whole())
        finally:
            assert all(puppet.ended() for puppet in self.puppets)
        return worker


def willing(_: object) -> bool:
    return True


def deaf(_: object) -> bool:
    return False


def no_batches(message: object) -> bool:
    return not isinstance(message, Run)


class Silent:
    """Answers until it is told to be silent."""

    def __init__(self) -> None:
        self.silent = False

    def __call__(self, _: object) -> bool:
        return not self.silent


RUN = Run(0, ())


async def lost(reply: asyncio.Future[object]) -> None:
    with pytest.raises(WorkerLost):
        await reply


def test_a_worker_that_gives_no_sign_of_life_is_replaced() -> None:
    first = Silent()

    async def story(worker: Worker, up: asyncio.Event) -> None:
        await up.wait()
        first.silent = True
        up.clear()
        await lost(worker.send(RUN, 3600))
        await up.wait()
        assert await worker.send(RUN, 3600) is None

    stage = Stage([first])
    assert stage.play(story).restarts == 1
    assert [puppet.killed for puppet in stage.puppets] == [True, False]


def test_a_batch_past_its_worst_credible_time_is_the_end_of_its_worker() -> None:
    async def story(worker: Worker, up: asyncio.Event) -> None:
        await up.wait()
        up.clear()
        await lost(worker.send(RUN, 0.1))
        await up.wait()

    stage = Stage([no_batches])
    assert stage.play(story).restarts == 1


def test_what_is_given_up_has_a_short_time_to_end() -> None:
    async def story(worker: Worker, up: asyncio.Event) -> None:
        await up.wait()
        up.clear()
        reply = worker.send(RUN, 3600)
        worker.give_up(reply, 0.1)
        await lost(reply)
        await up.wait()

    assert Stage([no_batches]).play(story).restarts == 1


def test_a_busy_worker_that_answers_is_left_alone() -> None:
    async def story(worker: Worker, up: asyncio.Event) -> None:
        await up.wait()
        reply = worker.send(RUN, 3600)
        await asyncio.wait((reply,), timeout=20 * worker.tick_seconds)
        assert not reply.done()
        assert worker.up

    assert Stage([no_batches]).play(story).restarts == 0


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), RuntimeError("can't start new thread")]
)
def test_no_error_ends_supervision(error: Exception) -> None:
    first = Silent()

    async def story(worker: Worker, up: asyncio.Event) -> None:
        await up.wait()
        up.clear()
        first.silent = True
        await up.wait()

    stage = Stage([first, error, error])
    assert stage.play(story).restarts == 3
    assert len(stage.puppets) == 2


def test_no_error_of_who_is_told_ends_supervision() -> None:
    told = 0

    async def story(worker: Worker, up: asyncio.Event) -> None:
        nonlocal told
        while told < 4:
            await asyncio.sleep(0.01)

    def changed() -> None:
        nonlocal told
        told += 1
        raise KeyError("unforeseen")

    stage = Stage([])
    worker = Worker("cpu-0", "cpu", 1, stage.launch)

    async def prepare(_: Worker) -> None:
        await worker.send(Ping(), 60)

    async def whole() -> None:
        supervising = asyncio.create_task(worker.supervise(prepare, changed))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await story(worker, asyncio.Event())
        worker.close()
        await supervising

    asyncio.run(whole())
    assert worker.restarts >= 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (deaf, "no sign of life"),
        (OSError(24, "Too many open files"), "Too many open files"),
    ],
)
def test_a_worker_that_cannot_start_ends_start_up_after_some_tries(
    script: Callable[[object], bool] | Exception, reason: str
) -> None:
    async def story(_: Worker, up: asyncio.Event) -> None:
        await up.wait()

    with pytest.raises(ValueError, match=f"cannot start: .*{reason}.*3 tries"):
        Stage([script] * 3).play(story)


def test_a_connection_that_broke_before_the_reader_saw_it_is_a_lost_worker() -> None:
    async def story(worker: Worker, up: asyncio.Event) -> None:
        await up.wait()
        worker.close()
        await lost(worker.send(Drop(0), 60))
        assert not worker.up

    Stage([]).play(story)
