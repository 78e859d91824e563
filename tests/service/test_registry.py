"""The models in service, and the bytes that workers load."""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from ppool.service.metrics import Metrics
from ppool.service.models import Model
from ppool.service.settings import Settings
from ppool.service.workers.inference import load_model
from ppool.service.workers.launch import launch_process
from ppool.service.workers.loading import ModelLoader, Planner
from ppool.service.workers.messages import Drop, Load, Probe
from ppool.service.workers.pool import WorkerPool
from ppool.service.workers.registry import ModelRegistry
from ppool.service.workers.snapshot import Snapshot
from ppool.service.workers.supervision import Worker
from tests.service.harness import METADATA, tiny_model


class Shelf:
    """A registry whose workers note what they are sent, and do all of it at once."""

    def __init__(self, *, cores: int, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.pool = WorkerPool(self.settings, launch_process, lambda: None)
        planner = Planner(lambda most: (most,), lambda *_: None, lambda _: None)
        loader = ModelLoader(self.settings, self.pool, planner, cores)
        self.registry = ModelRegistry(self.settings, self.pool, loader, Metrics())
        self.sent: list[Any] = []
        for worker in self.pool.workers:
            worker.send = self._send  # type: ignore[method-assign]
        self.pool.start = self._start  # type: ignore[method-assign]

    async def _start(self, prepare: Any) -> None:
        for worker in self.pool.workers:
            await prepare(worker)
            worker.up = True

    def _send(self, message: object, _: float) -> asyncio.Future[Any]:
        reply = asyncio.get_running_loop().create_future()
        self.sent.append(message)
        match message:
            case Load(_, file, name):
                model = METADATA.into(
                    Model,
                    name=name or file.path.stem,
                    file=file.path.name,
                    sha256=file.sha256,
                    provider="CPUExecutionProvider",
                    kernels="portable",
                    kernels_reason="",
                    modes=("resize",),
                )
                reply.set_result(model)
            case Probe():
                reply.set_result((0.01, 100.0))
            case _:
                reply.set_result(None)
        return reply

    def loads(self) -> list[int]:
        """The threads of each load."""
        return [message.threads for message in self.sent if isinstance(message, Load)]

    def lone(self, worker: Worker | None = None) -> bool:
        """Whether an image that is alone now would be run by another session."""
        (served,) = self.registry.models.values()
        handle = self.registry.lone(worker or self.pool.workers[0], served.handle)
        return handle != served.handle


def test_an_image_that_is_alone_gets_more_threads_once_they_are_there(model_file: Path) -> None:
    async def story() -> None:
        shelf = Shelf(cores=4, model=[model_file], workers=2)
        await shelf.registry.start()
        assert shelf.loads() == [1, 1]
        assert [shelf.lone(), shelf.lone(shelf.pool.workers[1])] == [False, False]
        await asyncio.sleep(0)
        assert [shelf.lone(), shelf.lone(shelf.pool.workers[1])] == [True, False]
        assert shelf.loads() == [1, 1, 4]
        # A new process does not have it.
        shelf.pool.workers[0].loaded.clear()
        assert not shelf.lone()
        await asyncio.sleep(0)
        assert shelf.lone()

    asyncio.run(story())


@pytest.mark.parametrize(("cores", "threads"), [(1, None), (2, 1), (2, 2)])
def test_with_one_core_or_threads_that_are_set_nothing_is_loaded_twice(
    model_file: Path, cores: int, threads: int | None
) -> None:
    async def story() -> None:
        shelf = Shelf(cores=cores, model=[model_file], workers=1, threads=threads)
        await shelf.registry.start()
        assert not shelf.lone()
        await asyncio.sleep(0)
        assert not shelf.lone()
        assert len(shelf.loads()) == 1

    asyncio.run(story())


def test_a_model_that_is_replaced_takes_its_second_session_with_it(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"old")

    async def story() -> None:
        shelf = Shelf(cores=2, model=[file], workers=1)
        await shelf.registry.start()
        shelf.lone()
        await asyncio.sleep(0)
        file.write_bytes(b"newer")
        await shelf.registry.reload()
        loaded = [message.handle for message in shelf.sent if isinstance(message, Load)]
        dropped = {message.handle for message in shelf.sent if isinstance(message, Drop)}
        assert dropped == set(loaded[:2])
        assert not shelf.lone()

    asyncio.run(story())


def test_workers_load_what_was_read_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    path, content = tmp_path / "model.onnx", tiny_model()
    path.write_bytes(content)
    snapshot = Snapshot(path)
    path.write_bytes(b"something else")
    path.unlink()
    model = load_model(snapshot.file).model
    assert (model.file, model.sha256) == ("model.onnx", hashlib.sha256(content).hexdigest())


def test_a_fifo_is_no_model_file_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(OSError, match="not a regular file"):
        Snapshot(tmp_path / "model.onnx")


def test_more_than_any_model_has_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(ValueError, match="2 GiB"):
        Snapshot(path)
