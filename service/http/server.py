"""The server process once it is set up: application, signals, drain."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import threading
from types import FrameType

import uvicorn

from ppool.service.http.app import create_app
from ppool.service.http.connection import limited
from ppool.service.scheduling.engine import Engine
from ppool.service.settings import Settings
from ppool.service.tracing import exporting_provider
from ppool.service.workers.launch import Launch

__all__ = ["run"]

_logger = logging.getLogger("ppool.service")


def run(settings: Settings, listener: socket.socket, launch: Launch) -> None:
    """Serve until a signal says to stop, and finish what was accepted.

    Args:
        settings: Of everything.
        listener: Where requests come in.
        launch: Starts a worker process.

    Raises:
        ValueError: if the models cannot be served, or tracing cannot be done.
    """
    failures: list[str] = []

    def failed(reason: str) -> None:
        failures.append(reason)
        server.should_exit = True

    app = create_app(settings, launch=launch, failed=failed, tracing=exporting_provider())
    config = uvicorn.Config(
        app,
        http=limited(settings.head_timeout_seconds),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_seconds) + 1,
    )
    server = _Server(config, app.state.engine, settings.drain_delay_seconds)
    # uvicorn raises the signal again once it has stopped; by then it has been obeyed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    server.run(sockets=[listener])
    if failures:
        raise ValueError(failures[0])


class _Server(uvicorn.Server):
    """A server that on a signal says it is draining, serves on for a while, then stops."""

    def __init__(self, config: uvicorn.Config, engine: Engine, drain_delay_seconds: float) -> None:
        super().__init__(config)
        self._engine = engine
        self._drain_delay_seconds = drain_delay_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and reload models on SIGHUP."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        self._reloading = asyncio.ensure_future(self._engine.fleet.reload())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain; a second signal stops at once."""
        _logger.info("%s: draining", signal.Signals(sig).name)
        impatient = self._engine.phase == "draining"
        self._engine.phase = "draining"
        if impatient or not self._drain_delay_seconds:
            super().handle_exit(sig, frame)
            return
        stop = threading.Timer(self._drain_delay_seconds, super().handle_exit, (sig, frame))
        stop.daemon = True
        stop.start()
