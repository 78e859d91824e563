"""Worker processes under supervision: started, spoken to, restarted when they die."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from ppool.service.workers.errors import WorkerFailed, WorkerLost
from ppool.service.workers.launch import Launch, Process
from ppool.service.workers.messages import HEADER, Failure, frame, parse

__all__ = ["Worker"]

# Between restarts, doubling; a worker that lived this long starts over at the beginning.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _STEADY_SECONDS = 0.1, 30.0, 60.0

_logger = logging.getLogger("ppool.service")


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
    """

    def __init__(self, name: str, device: str, lanes: int, launch: Launch) -> None:
        self.name = name
        self.device = device
        self.lanes = lanes
        self.up = False
        self.restarts = 0
        self.loaded: set[int] = set()
        self.busy = 0
        self._launch = launch
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._closing = asyncio.Event()

    def send(self, message: object) -> asyncio.Future[Any]:
        """The reply to ``message``; fails with ``WorkerLost`` or ``WorkerFailed``."""
        number = next(self._numbers)
        reply = asyncio.get_running_loop().create_future()
        if self._writer is None or self._writer.is_closing():
            # A write can fail before the reader sees the end, and then it is not up any more.
            self.up = False
            reply.set_exception(WorkerLost(self.name))
            return reply
        self._waiting[number] = reply
        self._writer.write(frame(number, message))
        return reply

    async def supervise(
        self, prepare: Callable[[Worker], Awaitable[None]], changed: Callable[[], None]
    ) -> None:
        """Keep a process running until :meth:`close`.

        Args:
            prepare: Readies a new process, by loading models; the worker is up when it returns.
            changed: Called when the worker went up or down.

        Raises:
            WorkerFailed, ValueError: if the first process cannot be prepared; no restart mends it.
        """
        pause = _FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                await self._live(prepare, changed)
            except (WorkerFailed, ValueError) as error:
                if not self.restarts:
                    raise
                _logger.error("worker %s cannot start: %s", self.name, error)
            if self._closing.is_set():
                return
            if time.monotonic() - started > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            _logger.error("worker %s died; restarting in %.1f s", self.name, pause)
            try:
                await asyncio.wait_for(self._closing.wait(), pause)
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self.restarts += 1

    def close(self) -> None:
        """Let the process end; what it was given before is lost."""
        self._closing.set()
        if self._writer is not None:
            self._writer.close()

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
    ) -> None:
        process, connection = self._launch(self.lanes, self.device)
        self._process = process
        reader, self._writer = await asyncio.open_connection(sock=connection)
        receiving = asyncio.create_task(self._receive(reader))
        try:
            await prepare(self)
            self.up = True
            changed()
            await receiving
        except WorkerLost:
            await receiving
        finally:
            self.up = False
            writer, self._writer = self._writer, None
            writer.close()
            receiving.cancel()
            self._lose()
            self.loaded.clear()
            changed()
            process.kill()
            with suppress(ConnectionError):
                await writer.wait_closed()
            await asyncio.to_thread(process.wait)
            self._process = None

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
                number, value = parse(await reader.readexactly(length))
                reply = self._waiting.pop(number)
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
        for reply in lost.values():
            if not reply.done():
                reply.set_exception(WorkerLost(self.name))
