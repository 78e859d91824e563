"""The worker process: takes messages from its sockets, answers them, and ends with the server."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, cast

from ppool.service.codecs.header import ImageLimits
from ppool.service.logs import Form, Level, configure_logging
from ppool.service.workers.inference import Segmenter, Stop, load_model
from ppool.service.workers.messages import (
    Cancel,
    Drop,
    Failure,
    Load,
    Ping,
    Probe,
    Run,
    Verify,
    frame,
    read,
)

__all__ = ["Loader", "live", "prepare", "serve"]

Loader = Callable[[Load], Segmenter]

# Variables of glibc, the same for mallopt(3), and what they are set to: bytes from which on memory
# is apart, and is returned; and heaps, of which each keeps what threads that are gone had of it.
_MALLOC = (
    ("MALLOC_MMAP_THRESHOLD_", -3, 8 << 20),
    ("MALLOC_TRIM_THRESHOLD_", -1, 16 << 20),
    ("MALLOC_ARENA_MAX", -8, 1),
)
_PR_SET_NAME = 15  # prctl(2)

_logger = logging.getLogger("ppool.service")


def serve(
    work: socket.socket,
    control: socket.socket,
    lanes: int,
    load: Loader,
    ended: Callable[[], None] = lambda: None,
) -> None:
    """Answer messages until the other end closes, and then call ``ended`` at once.

    On ``work`` come batches, ``lanes`` at a time: a lane reads, works and answers with no hand-over
    to another thread. Everything else comes on ``control``, where somebody always listens: whoever
    does not answer there is stuck. Models are loaded and probed on threads of their own, so that a
    hot swap holds up nobody.
    """
    worker = _Worker(work, control, load, ended)
    for lane in range(1, lanes):
        threading.Thread(target=worker.lane, name=f"lane-{lane}", daemon=True).start()
    threading.Thread(target=worker.listen, name="control", daemon=True).start()
    worker.lane()


class _Link:
    """One end of a socket whose messages several threads read and write."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reading, self._writing = threading.Lock(), threading.Lock()

    def receive(self) -> tuple[int, Any] | None:
        """The next message and its number; ``None`` when the other end has closed."""
        with self._reading:
            try:
                return read(self._exactly)
            except (EOFError, OSError):
                return None

    def send(self, pieces: list[bytes]) -> None:
        with self._writing, suppress(OSError):  # the server is gone, and the next read says so
            for piece in pieces:
                self._connection.sendall(piece)

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _exactly(self, count: int) -> bytes:
        content = self._connection.recv(count, socket.MSG_WAITALL)
        while len(content) < count:  # a signal came between
            more = self._connection.recv(count - len(content), socket.MSG_WAITALL)
            if not more:
                raise EOFError
            content += more
        return content


class _Worker:
    def __init__(
        self,
        work: socket.socket,
        control: socket.socket,
        load: Loader,
        ended: Callable[[], None],
    ) -> None:
        self._work, self._control = _Link(work), _Link(control)
        self._load, self._ended = load, ended
        self._models: dict[int, tuple[Segmenter, ImageLimits]] = {}
        self._running: dict[int, Stop] = {}

    def lane(self) -> None:
        """Run batches, one after the other."""
        try:
            while (received := self._work.receive()) is not None:
                self._answer(self._work, *received)
        finally:
            self._end()

    def listen(self) -> None:
        """Answer everything that is not a batch."""
        try:
            while (received := self._control.receive()) is not None:
                number, message = received
                if isinstance(message, (Load, Verify, Probe)):
                    self._apart(number, message)
                else:
                    self._answer(self._control, number, message)
            self._ended()
        finally:
            self._end()

    def _end(self) -> None:
        """With one thread gone the worker is no whole one; the server is to start another."""
        self._work.close()
        self._control.close()

    def _apart(self, number: int, message: object) -> None:
        answer = threading.Thread(
            target=self._answer, args=(self._control, number, message), daemon=True
        )
        try:
            answer.start()
        except RuntimeError:  # the system has no more threads now
            answer.run()

    def _answer(self, link: _Link, number: int, message: object) -> None:
        try:
            value = self._do(number, message)
        except ValueError as error:
            value = Failure(str(error), expected=True)
        except Exception:  # noqa: BLE001 - the server logs it
            value = Failure(traceback.format_exc(), expected=False)
        link.send(frame(number, value))

    def _do(self, number: int, message: object) -> Any:
        reply: Any = None
        match message:
            case Run(handle, tasks):
                segmenter, limits = self._models[handle]
                self._running[number] = stop = Stop()
                try:
                    reply = segmenter.segment(tasks, limits, stop)
                finally:
                    del self._running[number]
            case Cancel(other):
                if running := self._running.get(other):
                    running.set()
            case Load(handle):
                segmenter = self._load(message)
                self._models[handle] = segmenter, message.limits
                _release_memory()
                reply = segmenter.model
            case Verify(handle, height, width):
                self._models[handle][0].verify(height, width)
            case Probe(handle, height, width, batch, seconds):
                reply = self._models[handle][0].probe(height, width, batch, seconds)
                _release_memory()
            case Drop(handle):
                self._models.pop(handle, None)
            case Ping():
                pass
            case _:
                raise TypeError(f"expected one of ppool.service.workers.messages, got {message!r}")
        return reply


def _release_memory() -> None:
    """Return to the system what loading and verifying took: with VGG-16 more than its weights."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
        trim(0)


def _keep_memory() -> None:
    """Let the allocator keep what a photo's pixels take, which come and go.

    Returning it to the system after each, and getting it back, takes a tenth of a photo's time.
    Whoever has set the variables of glibc decides instead.
    """
    if change := getattr(ctypes.CDLL(None), "mallopt", None):
        for name, number, value in _MALLOC:
            if name not in os.environ:
                change(number, value)


def prepare(name: str) -> None:
    """What a process does for as long as it lives, a worker or what becomes one.

    Args:
        name: In lists of processes.
    """
    # A terminal and systemd signal every process of a group; this one ends when its server does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def live(work: socket.socket, control: socket.socket, lanes: int, device: str) -> NoReturn:
    """Be a worker until the server closes its ends; this ends the process."""
    prepare("ppool-worker")
    _keep_memory()
    configure_logging(
        cast(Form, os.environ.get("PPOOL_LOG_FORMAT", "text")),
        cast(Level, os.environ.get("PPOOL_LOG_LEVEL", "info")),
    )
    providers = () if device == "cpu" else ("CUDAExecutionProvider", "CPUExecutionProvider")

    def load(message: Load) -> Segmenter:
        return load_model(
            message.file, name=message.name, threads=message.threads, providers=providers
        )

    try:
        # Nobody waits any more for what is under way, be it a batch or a model.
        serve(work, control, lanes, load, ended=lambda: os._exit(0))
    except Exception:
        _logger.exception("worker ends")
        os._exit(1)
    # Not through the interpreter's teardown: a lane may still be inside ONNX Runtime.
    os._exit(0)


def _main() -> NoReturn:
    work, control = (socket.socket(fileno=int(text)) for text in sys.argv[1:3])
    live(work, control, int(sys.argv[3]), sys.argv[4])


if __name__ == "__main__":
    _main()
