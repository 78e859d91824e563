"""The worker process: what it answers to messages."""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppool.service.answers import Answer, Encoded
from ppool.service.codecs.header import ImageLimits
from ppool.service.workers.inference import Stop, Stopped
from ppool.service.workers.messages import (
    Cancel,
    Drop,
    Failure,
    Load,
    Ping,
    Run,
    Task,
    frame,
    read,
)
from ppool.service.workers.snapshot import ModelFile
from tests.service.harness import ThreadWorker
from tests.service.traffic import PATIENCE_SECONDS

LIMITS = ImageLimits(1, 1, 1)
LOAD = Load(0, ModelFile(Path("a.onnx"), Path("a.onnx"), ""), None, 1, LIMITS)


class Line:
    """Both sockets of a worker, as its server has them."""

    def __init__(self, load: Callable[[Load], Any]) -> None:
        launched = ThreadWorker.launch(1, load)
        self.process = launched.process
        self._sockets = {True: launched.work, False: launched.control}
        for end in self._sockets.values():
            end.settimeout(PATIENCE_SECONDS)
        self._numbers = count()

    def send(self, message: object) -> int:
        number = next(self._numbers)
        self._sockets[isinstance(message, Run)].sendall(b"".join(frame(number, message)))
        return number

    def receive(self, *, batch: bool = False) -> tuple[int, Any]:
        end = self._sockets[batch]
        return read(lambda count: end.recv(count, socket.MSG_WAITALL))

    def ask(self, message: object) -> Any:
        number = self.send(message)
        answered, reply = self.receive(batch=isinstance(message, Run))
        assert answered == number
        return reply

    def close(self) -> None:
        for end in self._sockets.values():
            end.close()


@contextmanager
def worker(load: Callable[[Load], Any]) -> Iterator[Line]:
    line = Line(load)
    yield line
    line.close()


def test_a_model_is_run_until_it_is_dropped() -> None:
    model = SimpleNamespace(model="about", segment=lambda tasks, *_: len(tasks))
    with worker(lambda _: model) as line:
        assert line.ask(LOAD) == "about"
        assert line.ask(Run(0, ())) == 0
        assert line.ask(Drop(0)) is None
        assert isinstance(line.ask(Run(0, ())), Failure)


def test_a_model_that_cannot_be_loaded_says_why() -> None:
    def refuse(_: Load) -> Any:
        raise ValueError("cut off")

    with worker(refuse) as line:
        assert line.ask(LOAD) == Failure("cut off", expected=True)


class Endless:
    """Runs until it is stopped."""

    model = "endless"

    def __init__(self) -> None:
        self.running = threading.Event()

    def segment(self, _: object, __: object, stop: Stop) -> str:
        self.running.set()
        try:
            while True:
                stop.check()
        except Stopped:
            return "stopped"


def test_a_worker_at_work_answers_and_can_be_stopped() -> None:
    model = Endless()
    with worker(lambda _: model) as line:
        line.ask(LOAD)
        number = line.send(Run(0, ()))
        assert model.running.wait(PATIENCE_SECONDS)
        assert line.ask(Ping()) is None
        assert line.ask(Cancel(number)) is None
        assert line.receive(batch=True) == (number, "stopped")
        # What is over, or never was, is nothing to stop.
        assert line.ask(Cancel(number)) is None


def test_a_model_is_loaded_beside_the_work_and_even_without_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with worker(lambda _: SimpleNamespace(model="about")) as line:
        with monkeypatch.context() as short:
            short.setattr(threading.Thread, "start", _no_more)
            assert line.ask(LOAD) == "about"
        assert line.ask(LOAD) == "about"


def _no_more(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_worker_ends_with_its_server() -> None:
    with worker(lambda _: None) as line:
        line.ask(Ping())
        process = line.process
    assert isinstance(process, ThreadWorker)
    process.join(PATIENCE_SECONDS)
    assert process.poll() == 0


def test_photos_and_masks_travel_without_being_copied_into_the_message() -> None:
    photo, mask = bytes(range(256)) * 99, b"mask"
    answer = Answer(("mask",))
    tasks = (Task("a", photo, answer), Task("b", b"", answer))
    for message, files in (
        (Run(0, tasks), [photo, b""]),
        ([Encoded("a", {"png": mask})], [mask]),
    ):
        first, *apart = frame(7, message)
        assert [id(piece) for piece in apart] == [id(file) for file in files]
        assert all(file not in first for file in files if file)
        stream = io.BytesIO(b"".join((first, *apart)))
        assert read(stream.read) == (7, message)
