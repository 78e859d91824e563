"""gRPC on a port of its own, in the process and on the event loop of HTTP.

Calls are admitted, refused, timed and counted as requests of HTTP are.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from ppool.service.engine import Engine
from ppool.service.rpc.calls import Calls
from ppool.service.rpc.services import health_service, inference_service
from ppool.service.settings import Settings
from ppool.service.tracing import Record

__all__ = ["RpcServer"]

# Clients then look where else to connect, and what they took nothing of ends.
_CONNECTION_MS = 300_000
# So that clients are found gone whose machine is.
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 60_000, 20_000

_logger = logging.getLogger("ppool.service")


class RpcServer:
    """The Open Inference Protocol and the health of the server over gRPC.

    Args:
        settings: Of everything.
        port: To listen on; 0 takes a free one.

    Attributes:
        port: The one that it listens on.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        self.port = port
        self._stopping: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def serving(self, engine: Engine, record: Record | None) -> AsyncIterator[None]:
        """Answer calls inside of this, and finish them at its end.

        Raises:
            ValueError: if it cannot listen.
        """
        calls = Calls(engine, record)
        self._server = server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers(
            (inference_service(engine, calls), health_service(engine, calls))
        )
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        try:
            self.port = server.add_insecure_port(f"{host}:{self.port}")
        except RuntimeError as error:
            raise ValueError(
                f"cannot listen on {host}:{self.port} for gRPC; choose another PPOOL_GRPC_PORT"
            ) from error
        await server.start()
        _logger.info("gRPC on %s:%d", host, self.port)
        try:
            yield
        finally:
            await self.stop()

    def stop(self) -> asyncio.Future[None]:
        """Take no more calls; done when those under way are."""
        if self._stopping is None:
            grace = math.ceil(self._settings.request_timeout_seconds) + 1
            self._stopping = asyncio.ensure_future(self._server.stop(grace))
        return self._stopping

    def _options(self) -> list[tuple[str, int]]:
        grace_ms = math.ceil(self._settings.request_timeout_seconds * 1e3) + 1000
        head_ms = math.ceil(self._settings.head_timeout_seconds * 1e3)
        return [
            ("grpc.so_reuseport", 0),  # or two servers would share the port unnoticed
            ("grpc.max_receive_message_length", self._settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.server_handshake_timeout_ms", head_ms),
            ("grpc.max_connection_age_ms", _CONNECTION_MS),
            ("grpc.max_connection_age_grace_ms", grace_ms),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ]
