"""The worker process: what it answers to messages."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ppool.service.codecs.images import ImageLimits
from ppool.service.workers.messages import HEADER, Drop, Failure, Load, Run, frame, parse
from ppool.service.workers.snapshot import ModelFile
from tests.service.harness import ThreadWorker

LIMITS = ImageLimits(1, 1, 1)
LOAD = Load(0, ModelFile(Path("a.onnx"), Path("a.onnx"), ""), None, 1, LIMITS)


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


def test_a_model_is_run_until_it_is_dropped() -> None:
    with worker(lambda message: message.file.sha256) as ask:
        assert ask(LOAD).sha256 == ""
        assert ask(Run(0, ())) == 1
        assert ask(Drop(0)) is None
        assert isinstance(ask(Run(0, ())), Failure)


def test_a_model_that_cannot_be_loaded_says_why() -> None:
    def refuse(_: Load) -> Any:
        raise ValueError("cut off")

    with worker(refuse) as ask:
        assert ask(LOAD) == Failure("cut off", expected=True)
