"""The worker process: which session a photo is given."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from ppool.service.codecs.images import ImageLimits
from ppool.service.workers.messages import HEADER, Drop, Failure, Load, Run, frame, parse
from tests.service.harness import ThreadWorker
from tests.service.traffic import PATIENCE_SECONDS

LIMITS = ImageLimits(1, 1, 1)
LOAD = Load(0, "a.onnx", None, threads=1, alone_threads=2)


@contextmanager
def worker(load: Callable[[Load], Any]) -> Iterator[Callable[[object], Any]]:
    """Asks a worker, whose models answer with their number of threads."""

    def segmenter(message: Load) -> Any:
        return SimpleNamespace(
            model=SimpleNamespace(sha256=load(message)), segment=lambda *_: message.threads
        )

    numbers = count()
    ours, theirs = socket.socketpair()
    serving = ThreadWorker(theirs, 1, segmenter)
    with ours, ours.makefile("rb") as replies:

        def ask(message: object) -> Any:
            ours.sendall(frame(next(numbers), message))
            return parse(replies.read(HEADER.unpack(replies.read(HEADER.size))[0]))[1]

        yield ask
        serving.kill()
        serving.wait()


def test_a_photo_that_is_alone_gets_more_threads_once_they_are_there() -> None:
    loaded = []
    with worker(lambda message: loaded.append(message.threads) or "same") as ask:
        ask(LOAD)
        assert ask(Run(0, (), LIMITS)) == 1
        assert loaded == [1]
        end = time.monotonic() + PATIENCE_SECONDS
        while ask(Run(0, (), LIMITS, alone=True)) != 2:
            assert time.monotonic() < end
        assert ask(Run(0, (), LIMITS)) == 1
        assert loaded == [1, 2]
        ask(Drop(0))
        assert isinstance(ask(Run(0, (), LIMITS, alone=True)), Failure)


def _gone(message: Load) -> str:
    if message.threads > 1:
        raise ValueError("the file is gone")
    return "old"


@pytest.mark.parametrize("load", [_gone, lambda message: f"{message.threads}"], ids=["gone", "new"])
def test_a_file_that_has_changed_since_is_not_mixed_with_the_old_one(
    load: Callable[[Load], Any],
) -> None:
    asked = []

    def noted(message: Load) -> Any:
        asked.append(message.threads)
        return load(message)

    with worker(noted) as ask:
        ask(LOAD)
        assert ask(Run(0, (), LIMITS, alone=True)) == 1
        for thread in threading.enumerate():
            if thread.name == "alone":
                thread.join(PATIENCE_SECONDS)
        assert asked == [1, 2]
        assert ask(Run(0, (), LIMITS, alone=True)) == 1


def test_without_more_threads_nothing_else_is_loaded() -> None:
    loaded = []
    with worker(lambda message: loaded.append(message.threads)) as ask:
        ask(Load(0, "a.onnx", None, threads=2))
        assert ask(Run(0, (), LIMITS, alone=True)) == 2
        assert loaded == [2]
