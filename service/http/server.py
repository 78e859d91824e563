"""The server process once it is set up: application, signals, drain."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from ppool.service.engine import Engine
from ppool.service.http.app import Beside, create_app
from ppool.service.http.connection import limited
from ppool.service.settings import Settings
from ppool.service.tracing import exporting_provider
from ppool.service.workers.launch import Launch

__all__ = ["run"]

# timeout(1), and a terminal with a program between, send a signal to the process and to its group.
_ECHO_SECONDS = 0.2
# A worker may be inside a model that takes longer, and the loop may wait for it.
_START_UP_ENDS_SECONDS = 1.5

_logger = logging.getLogger("ppool.service")


def run(
    settings: Settings, listener: socket.socket, launch: Launch, beside: Beside | None = None
) -> None:
    """Serve until a signal says to stop, and finish what was accepted.

    Args:
        settings: Of everything.
        listener: Where requests come in.
        launch: Starts a worker process.
        beside: Another protocol.

    Raises:
        ValueError: if the models cannot be served, or tracing cannot be done.
    """
    failures: list[str] = []

    def failed(reason: str) -> None:
        failures.append(reason)
        server.should_exit = True

    app = create_app(
        settings, launch=launch, failed=failed, tracing=exporting_provider(), beside=beside
    )
    config = uvicorn.Config(
        app,
        http=limited(settings.head_timeout_seconds),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_seconds) + 1,
    )
    server = _Server(config, app.state.engine, settings.drain_delay_seconds, beside)
    server.run(sockets=[listener])
    if failures:
        raise ValueError(failures[0])


class _Server(uvicorn.Server):
    """A server that drains on a signal, and is more impatient with each further one.

    The first is for balancers to notice, the second ends that delay, and one more ends the process
    whatever is under way. While it starts nothing is: the first stops it, the second ends it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Engine,
        drain_delay_seconds: float,
        beside: Beside | None,
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._beside = beside
        self._drain_delay_seconds = drain_delay_seconds
        self._signalled = -math.inf
        self._served = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and reload models on SIGHUP."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way, by every protocol at a time."""
        if self._beside is not None:
            self._beside.stop()
        await super().shutdown(sockets)

    def _reload(self) -> None:
        _logger.info("SIGHUP: looking for changed model files")
        self._reloading = asyncio.ensure_future(self._engine.registry.reload())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Obey signals; uvicorn would raise them again in the end, and be killed by them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Go one step nearer to the end."""
        now = time.monotonic()
        echo, self._signalled = now - self._signalled < _ECHO_SECONDS, now
        phase = self._engine.drain()
        if self.should_exit:
            if not (echo and self._served):
                os._exit(128 + sig)
            return
        self._served = phase != "starting"
        if not self._served:
            _after(_START_UP_ENDS_SECONDS, lambda: os._exit(0))
            self._stop()
        elif phase == "ready" and self._drain_delay_seconds:
            _after(self._drain_delay_seconds, self._stop)
        else:
            self._stop()
        _logger.info("%s: %s", signal.Signals(sig).name, "draining" if self._served else "stopping")

    def _stop(self) -> None:
        self.should_exit = True


def _after(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
