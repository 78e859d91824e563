"""The command ``ppool-serve``: settings, model, socket, server."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from service.app import create_app
from service.engine import Engine
from service.logs import configure_logging
from service.models import model_files
from service.settings import Settings, load_settings

__all__ = ["main"]

_logger = logging.getLogger("ppool.service")

_cli = typer.Typer(add_completion=False, rich_markup_mode=None)


@_cli.command()
def serve(
    model: Annotated[
        list[Path] | None,
        typer.Argument(help="ONNX files of ppool-export, or folders; none: the shipped model."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Serve the model under this name.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one [8000].")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes [measured].")] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="Images in an inference [measured].")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="PPOOL_CONFIG", help="Settings file, TOML.")
    ] = None,
) -> None:
    """Serve segmentation models over HTTP.

    Every setting is also an environment variable, such as PPOOL_MAX_BODY_BYTES. The command line
    wins over the environment, the environment over the file. SIGHUP looks for changed model files.
    """
    try:
        settings = load_settings(
            config,
            model=model or None,
            name=name,
            host=host,
            port=port,
            workers=workers,
            max_batch_size=max_batch_size,
        )
        configure_logging(settings.log_format)
        model_files(settings.model)
        listener = _listen(settings.host, settings.port)
    except ValueError as error:
        _complain(str(error))
        raise SystemExit(2) from error
    _announce(listener)
    _run(settings, listener)


def main() -> None:
    """Entry point of ``ppool-serve`` and ``python -m service``."""
    _cli(prog_name="ppool-serve")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port or --host"
        ) from error


def _announce(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    _logger.info(
        "ppool %s, listening on http://%s, API at http://%s/docs",
        version("ppool"),
        address,
        address,
    )


def _complain(reason: str) -> None:
    print(f"ppool-serve: {reason}", file=sys.stderr)


def _run(settings: Settings, listener: socket.socket) -> None:
    failures: list[str] = []

    def failed(reason: str) -> None:
        failures.append(reason)
        server.should_exit = True

    app = create_app(settings, failed=failed)
    config = uvicorn.Config(
        app,
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
        _complain(failures[0])
        raise SystemExit(2)


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


if __name__ == "__main__":
    main()
