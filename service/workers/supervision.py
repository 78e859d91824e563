"""Worker processes under supervision: started, spoken to, restarted when they die or hang."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ppool.service.errors import WorkerFailed, WorkerLost
from ppool.service.workers.launch import Launch, Process
from ppool.service.workers.messages import Cancel, Failure, Ping, Run, frame, reading

__all__ = ["Worker"]

# Between restarts, doubling; a worker that was up for so long starts over at the beginning.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _STEADY_SECONDS = 0.1, 10.0, 5.0
# What has never been up is tried so often before start-up ends.
_FIRST_TRIES = 3
# A worker is asked so often whether it is there; without an answer for so many ticks it is stuck.
# Work on the largest photos holds Python's lock for half a second, on a busy machine for two.
_TICK_SECONDS, _SILENT_TICKS = 0.5, 8
# Until the first answer: imports take 0.3 s, on a tenth of a core ten times as long and more. One
# that is halted meanwhile has no more time than any other.
_BOOT_TICKS = 60
# For one whose sockets are closed to end by itself; its status then says more.
_LEAVE_SECONDS = 0.2
# One that cannot be killed hangs in the kernel, and is left there.
_REAP_SECONDS = 2.0

_logger = logging.getLogger("ppool.service")


@dataclass
class _Waiting:
    """For the reply to one message, until the worker has been watched for so many ticks."""

    reply: asyncio.Future[Any]
    due: float


class Worker:
    """One worker process and its successors.

    Args:
        name: In logs and metrics.
        device: ``cpu``, or ``cuda:`` and a number.
        lanes: Batches it works on at a time.
        launch: Starts the process.

    Attributes:
        up: Whether it takes work.
        restarts: How often it was started anew.
        loaded: Handles of the models it has.
        busy: Batches given to it and not yet answered.
        tick_seconds: How often it is looked after.
    """

    def __init__(self, name: str, device: str, lanes: int, launch: Launch) -> None:
        self.name = name
        self.device = device
        self.lanes = lanes
        self.up = False
        self.restarts = 0
        self.loaded: set[int] = set()
        self.busy = 0
        self.tick_seconds = _TICK_SECONDS
        self._launch = launch
        self._process: Process | None = None
        self._work: asyncio.StreamWriter | None = None
        self._control: asyncio.StreamWriter | None = None
        self._numbers = count()
        self._waiting: dict[int, _Waiting] = {}
        # Ticks since the process was started. Not seconds: after a halt of the whole machine, a
        # worker is to have its time as the server has.
        self._ticks = 0
        self._up_since: int | None = None
        self._stuck = ""
        self._proven = False
        self._closing = asyncio.Event()

    def send(self, message: object, within_seconds: float) -> asyncio.Future[Any]:
        """The reply to ``message``; fails with ``WorkerLost`` or ``WorkerFailed``.

        A process that does not reply within that time is killed.
        """
        number = next(self._numbers)
        reply = asyncio.get_running_loop().create_future()
        writer = self._work if isinstance(message, Run) else self._control
        if writer is None or writer.is_closing():
            # A write can fail before the reader sees the end, and then it is not up any more.
            self.up = False
            reply.set_exception(WorkerLost(self.name))
            return reply
        self._waiting[number] = _Waiting(
            reply, self._ticks + 1 + within_seconds / self.tick_seconds
        )
        writer.writelines(frame(number, message))
        return reply

    def give_up(self, reply: asyncio.Future[Any], within_seconds: float) -> None:
        """Stop working for ``reply``, for which nobody waits.

        A process that does not come to an end of it within that time is killed.
        """
        for number, waiting in self._waiting.items():
            if waiting.reply is reply:
                waiting.due = min(waiting.due, self._due(within_seconds))
                self.send(Cancel(number), within_seconds).add_done_callback(_ignore)
                return

    def _due(self, within_seconds: float) -> float:
        return self._ticks + 1 + within_seconds / self.tick_seconds

    async def supervise(
        self, prepare: Callable[[Worker], Awaitable[None]], changed: Callable[[], None]
    ) -> None:
        """Keep a process running until :meth:`close`.

        Args:
            prepare: Readies a new process, by loading models; the worker is up when it returns.
            changed: Called when the worker went up or down.

        Raises:
            ValueError: if no process can be prepared to begin with; the message says why.
        """
        pause, tries = _FIRST_PAUSE_SECONDS, 0
        while not self._closing.is_set():
            self._up_since = None
            try:
                reason = await self._live(prepare, changed)
            except (OSError, ValueError, WorkerLost) as error:
                reason = str(error)
                if not self._proven and isinstance(error, ValueError):
                    raise  # no restart mends it
            except Exception as error:  # whatever it is, the next process may fare better
                _logger.exception("worker %s", self.name)
                reason = str(error)
            if self._closing.is_set():
                return
            tries += 1
            if not self._proven and tries == _FIRST_TRIES:
                raise ValueError(f"worker {self.name} cannot start: {reason} ({tries} tries)")
            if self._was_up(_STEADY_SECONDS):
                pause = _FIRST_PAUSE_SECONDS
            _logger.error("worker %s: %s; restarting in %.1f s", self.name, reason, pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self.restarts += 1

    def _was_up(self, seconds: float) -> bool:
        if self._up_since is None:
            return False
        return (self._ticks - self._up_since) * self.tick_seconds >= seconds

    def close(self) -> None:
        """Let the process end; what it was given before is lost."""
        self._closing.set()
        self._close_links()

    def _close_links(self) -> None:
        """Say nothing more to the process, and hear nothing."""
        for writer in (self._work, self._control):
            if writer is not None:
                writer.close()

    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 where the system does not tell, or it is down."""
        if self._process is None:
            return 0
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def _live(
        self, prepare: Callable[[Worker], Awaitable[None]], changed: Callable[[], None]
    ) -> str:
        """From the start of one process to its end; what it ended of.

        Raises:
            WorkerLost: if it ended before it was up; the message says what of.
            Exception: whatever ``launch`` and ``prepare`` raise.
        """
        launched = self._launch(self.lanes, self.device)
        self._process, self._ticks, self._stuck = launched.process, 0, ""
        tasks: list[asyncio.Task[Any]] = []
        ended = ""
        try:
            control, self._control = await asyncio.open_connection(sock=launched.control)
            work, self._work = await asyncio.open_connection(sock=launched.work)
            over = (self._receive(control), self._receive(work), self._watch())
            tasks += map(asyncio.create_task, over)
            with suppress(WorkerLost):
                await prepare(self)
                self.up, self._proven, self._up_since = True, True, self._ticks
                changed()
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = await self._end(launched.process, tasks, changed)
        if self._up_since is None:
            raise WorkerLost(ended)
        return ended

    async def _end(
        self, process: Process, tasks: list[asyncio.Task[Any]], changed: Callable[[], None]
    ) -> str:
        """Leave nothing of the process; what it ended of."""
        self.up = False
        for task in tasks:
            task.cancel()
        self._close_links()
        self._control = self._work = None
        self.loaded.clear()
        self._lose()
        try:
            changed()
        finally:
            status = None if self._stuck else await _ended(process, _LEAVE_SECONDS)
            if status is None:
                process.kill()
                status = await _ended(process, _REAP_SECONDS)
            self._process = None
        if status is None:
            return "hangs in the kernel and cannot be killed"
        if self._stuck or status >= 0:
            return self._stuck or f"ended with status {status}"
        return f"killed by {signal.Signals(-status).name}"

    async def _watch(self) -> None:
        """Return once the process is stuck."""
        pinged, patience = 0, _BOOT_TICKS
        ping = self._ping()
        while not self._stuck:
            await asyncio.sleep(self.tick_seconds)
            self._ticks += 1
            if ping.done():
                ping, pinged, patience = self._ping(), self._ticks, _SILENT_TICKS
            elif (silent := self._ticks - pinged) > patience or (
                silent > _SILENT_TICKS and self._is_halted()
            ):
                self._stuck = f"no sign of life in {silent * self.tick_seconds:g} s"
            if any(waiting.due < self._ticks for waiting in self._waiting.values()):
                self._stuck = "did not come to the end of what it was given"
        self.up = False
        self._close_links()
        self._lose()

    def _is_halted(self) -> bool:
        """Whether a signal has stopped the process, as far as the system tells."""
        try:
            about = Path(f"/proc/{self._process.pid if self._process else 0}/stat").read_text()
        except OSError:
            return False
        return about.rpartition(")")[2].split()[0] == "T"

    def _ping(self) -> asyncio.Future[Any]:
        reply = self.send(Ping(), math.inf)
        reply.add_done_callback(_ignore)
        return reply

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, value = await _next_message(reader)
                reply = self._waiting.pop(number).reply
                if reply.done():
                    continue
                if isinstance(value, Failure):
                    reply.set_exception(WorkerFailed(value.text, expected=value.expected))
                else:
                    reply.set_result(value)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception:  # whatever it sent, it is not to be trusted with more
            _logger.exception("worker %s sent what cannot be read", self.name)
        finally:
            # Before the callers learn of it, or they would try again here.
            self.up = False
            self._lose()

    def _lose(self) -> None:
        lost, self._waiting = self._waiting, {}
        for waiting in lost.values():
            if not waiting.reply.done():
                waiting.reply.set_exception(WorkerLost(self.name))


async def _next_message(reader: asyncio.StreamReader) -> tuple[int, Any]:
    steps = reading()
    wanted = next(steps)
    while True:
        received = await reader.readexactly(wanted)
        try:
            wanted = steps.send(received)
        except StopIteration as done:
            message: tuple[int, Any] = done.value
            return message


async def _ended(process: Process, seconds: float) -> int | None:
    """The exit status, if there is one within that time.

    Polled, for a thread to wait on may be just what the system has no room for.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (status := process.poll()) is None and loop.time() < end:
        await asyncio.sleep(0.005)
    return status


def _ignore(reply: asyncio.Future[Any]) -> None:
    reply.exception()
