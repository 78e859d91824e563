"""The worker process: takes messages from its socket, answers them, and ends with the server."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, cast

from ppool.service.codecs.images import ImageLimits
from ppool.service.logs import Form, Level, configure_logging
from ppool.service.workers.inference import Segmenter, load_model
from ppool.service.workers.messages import HEADER, Drop, Failure, Load, Probe, Run, frame, parse

__all__ = ["Loader", "serve"]

Loader = Callable[[Load], Segmenter]


def serve(connection: socket.socket, lanes: int, load: Loader) -> None:
    """Answer messages, ``lanes`` at a time, until the other end closes.

    A lane reads, works and answers with no hand-over to another thread. Models are loaded on a
    thread of their own, so that a hot swap holds up nobody.
    """
    worker = _Worker(connection, load)
    threads = [
        threading.Thread(target=worker.lane, name=f"lane-{lane}", daemon=True)
        for lane in range(1, lanes)
    ]
    for thread in threads:
        thread.start()
    worker.lane()


class _Worker:
    def __init__(self, connection: socket.socket, load: Loader) -> None:
        self._connection = connection
        self._load = load
        self._models: dict[int, tuple[Segmenter, ImageLimits]] = {}
        self._reading, self._writing = threading.Lock(), threading.Lock()

    def lane(self) -> None:
        while (content := self._receive()) is not None:
            number, message = parse(content)
            if isinstance(message, Load):
                threading.Thread(target=self._answer, args=(number, message), daemon=True).start()
            else:
                self._answer(number, message)

    def _receive(self) -> bytearray | None:
        with self._reading:
            header = self._exactly(HEADER.size)
            return None if header is None else self._exactly(HEADER.unpack(header)[0])

    def _exactly(self, count: int) -> bytearray | None:
        content = bytearray(count)
        view = memoryview(content)
        while view:
            try:
                received = self._connection.recv_into(view)
            except OSError:
                received = 0
            if not received:
                return None
            view = view[received:]
        return content

    def _answer(self, number: int, message: object) -> None:
        try:
            value = self._do(message)
        except ValueError as error:
            value = Failure(str(error), expected=True)
        except Exception:  # noqa: BLE001 - the server logs it
            value = Failure(traceback.format_exc(), expected=False)
        content = frame(number, value)
        try:
            with self._writing:
                self._connection.sendall(content)
        except OSError:
            return  # the server is gone, and the next read says so

    def _do(self, message: object) -> Any:
        match message:
            case Run(handle, tasks):
                segmenter, limits = self._models[handle]
                return segmenter.segment(tasks, limits)
            case Load(handle):
                segmenter = self._load(message)
                self._models[handle] = segmenter, message.limits
                _release_memory()
                return segmenter.model
            case Probe(handle, height, width, batch, seconds):
                segmenter, _ = self._models[handle]
                return segmenter.probe(height, width, batch, seconds)
            case Drop(handle):
                self._models.pop(handle, None)
                return None
        raise TypeError(f"message: expected one of ppool.service.workers.messages, got {message!r}")


def _release_memory() -> None:
    """Return to the system what loading took: with VGG-16 more than its weights."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
        trim(0)


def _end_with_the_server(descriptor: int) -> None:
    """Do not finish a model or a batch that nobody waits for any more."""
    ended = select.poll()
    ended.register(descriptor, 0)  # POLLHUP is always reported
    ended.poll()
    os._exit(0)


def _main() -> None:
    # A terminal and systemd signal every process of a group; this one ends when its server does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    descriptor, lanes, device = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    threading.Thread(target=_end_with_the_server, args=(descriptor,), daemon=True).start()
    configure_logging(
        cast(Form, os.environ.get("PPOOL_LOG_FORMAT", "text")),
        cast(Level, os.environ.get("PPOOL_LOG_LEVEL", "info")),
    )
    providers = () if device == "cpu" else ("CUDAExecutionProvider", "CPUExecutionProvider")

    def load(message: Load) -> Segmenter:
        return load_model(
            message.file, name=message.name, threads=message.threads, providers=providers
        )

    serve(socket.socket(fileno=descriptor), lanes, load)
    # Not through the interpreter's teardown: a lane may still be inside ONNX Runtime.
    os._exit(0)


if __name__ == "__main__":
    _main()
