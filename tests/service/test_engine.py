"""What the probes say of an engine whose workers come and go."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from ppool.service.engine import Engine
from ppool.service.metrics import Metrics
from ppool.service.settings import Settings
from ppool.service.workers.inference import Segmenter
from ppool.service.workers.launch import Launched
from tests.service.harness import ThreadWorker
from tests.service.traffic import PATIENCE_SECONDS


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def test_without_a_worker_for_long_enough_the_process_is_as_good_as_dead(
    model_file: Path, segmenter: Segmenter
) -> None:
    now, room, processes = 0.0, True, list[ThreadWorker]()

    def launch(lanes: int, _: str) -> Launched:
        if not room:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        launched = ThreadWorker.launch(lanes, lambda _: segmenter)
        assert isinstance(launched.process, ThreadWorker)
        processes.append(launched.process)
        return launched

    async def story() -> None:
        nonlocal now, room
        settings = Settings(model=[model_file], workers=1, threads=1, max_batch_size=1)
        engine = Engine(settings, Metrics(), launch, clock=lambda: now)
        await engine.start()
        assert (engine.status, engine.alive) == ("ready", True)
        room = False
        processes[0].kill()
        await until(lambda: engine.status == "no-worker")
        now = 29.0
        assert engine.alive
        now = 31.0
        assert not engine.alive
        room = True
        await until(lambda: engine.status == "ready")
        assert engine.alive
        await engine.stop()

    asyncio.run(story())
