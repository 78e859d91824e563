"""Workers forked from a process that has imported what they need: they have its memory in common.

It has one thread and waits; what loads models and starts threads are the workers. Where the system
is no Linux, on GPUs, and should it ever be killed, workers are started each by itself.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn, Self

from ppool.service.settings import Settings
from ppool.service.workers.launch import (
    ONE_THREAD,
    Launch,
    Launched,
    connected,
    launch_process,
    members,
)

__all__ = ["launch_early"]

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def launch_early(settings: Settings) -> Launch:
    """Start all workers at once, to be handed out later; what is wanted beyond it is started.

    This process must have one thread.
    """
    template = None if settings.on_gpu else _Template.start()
    launch = template.launch if template else launch_process
    early: list[tuple[str, Launched]] = []
    with suppress(OSError):  # the supervisors try again, and say what is wrong
        for device, lanes in members(settings):
            early.append((device, launch(lanes, device)))

    def handed_out(lanes: int, device: str) -> Launched:
        for index, (started_on, _) in enumerate(early):
            if started_on == device:
                return early.pop(index)[1]
        return launch(lanes, device)

    return handed_out


class _Template:
    """The process, and how it is asked for workers.

    Workers become children of the process that started it, which waits for them as for any other.
    """

    def __init__(self, process: _Child, channel: socket.socket) -> None:
        self._process, self._channel = process, channel
        self._unborn: deque[_Forked] = deque()

    @classmethod
    def start(cls) -> Self | None:
        """Fork it from this process, which must have one thread; ``None`` where that cannot be."""
        if sys.platform != "linux" or ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                return None
            if not pid:
                ours.close()
                _ending(partial(_bear, theirs))
        ours.setblocking(False)
        return cls(_Child(pid), ours)

    def launch(self, lanes: int, device: str) -> Launched:
        """Start a worker, as ``launch_process`` does."""
        if device != "cpu" or self._process.poll() is not None:
            return launch_process(lanes, device)
        return connected(partial(self._forked, lanes))

    def _forked(self, lanes: int, descriptors: list[int]) -> _Forked:
        socket.send_fds(self._channel, [b"%d" % lanes], descriptors)
        self._unborn.append(_Forked(self._process, self._announce))
        return self._unborn[-1]

    def _announce(self) -> None:
        """Take in which processes there are by now."""
        try:
            while self._unborn and (pid := self._channel.recv(16)):
                self._unborn.popleft().found(int(pid))
        except OSError:  # none yet, or no more
            pass


class _Child:
    """A child of this process, by its id."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def poll(self) -> int | None:
        if self._status is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # whoever started us ignores SIGCHLD, so the system forgets
                self._status = 0
            else:
                self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status


class _Forked:
    """A worker that was asked for; until it is known which it is, the template stands for it."""

    def __init__(self, template: _Child, announce: Callable[[], None]) -> None:
        self._process = self._template = template
        self._announce = announce

    @property
    def pid(self) -> int:
        self._announce()
        return 0 if self._process is self._template else self._process.pid

    def found(self, pid: int) -> None:
        self._process = _Child(pid)

    def kill(self) -> None:
        self._announce()
        self._process.kill()

    def poll(self) -> int | None:
        self._announce()
        return self._process.poll()


def _bear(channel: socket.socket) -> None:
    """Fork a worker for every two sockets that come, until the other end closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.environ.update(ONE_THREAD | os.environ)
    from ppool.service.workers import child

    child.prepare("ppool-template")
    gc.collect()
    gc.freeze()
    while True:
        lanes, descriptors, *_ = socket.recv_fds(channel, 16, 2)
        if not lanes:
            return
        work, control = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        with work, control:
            pid = _adopted(channel, partial(child.live, work, control, int(lanes), "cpu"))
        channel.send(b"%d" % pid)


def _adopted(channel: socket.socket, live: Callable[[], None]) -> int:
    """Fork who does that and whom the process adopts that started this one; its id."""
    reading, writing = os.pipe()
    between = os.fork()
    if not between:
        _ending(partial(_pass_on, channel, (reading, writing), live))
    os.close(writing)
    os.waitpid(between, 0)
    pid = int(os.read(reading, 16))
    os.close(reading)
    return pid


def _pass_on(channel: socket.socket, pipe: tuple[int, int], live: Callable[[], None]) -> None:
    pid = os.fork()
    if pid:
        os.write(pipe[1], b"%d" % pid)
        return
    channel.close()
    for descriptor in pipe:
        os.close(descriptor)
    live()


def _ending(work: Callable[[], None]) -> NoReturn:
    """Do that, and end this process without returning to what it is a copy of."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - nobody else can say it
        traceback.print_exc()
    finally:
        os._exit(status)
