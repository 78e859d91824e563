"""The command ``ppool-serve``: settings, model, socket, server."""

from __future__ import annotations

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
from service.models import Model, load_model, shipped_model
from service.settings import Settings, load_settings

__all__ = ["main"]

_logger = logging.getLogger("ppool.service")

_cli = typer.Typer(add_completion=False, rich_markup_mode=None)


@_cli.command()
def serve(
    model: Annotated[
        Path | None, typer.Argument(help="ONNX file of ppool-export; none: the shipped model.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Serve the model under this name.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one [8000].")] = None,
    workers: Annotated[int | None, typer.Option(help="Inferences at a time [cores].")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Images in an inference [1].")] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="PPOOL_CONFIG", help="Settings file, TOML.")
    ] = None,
) -> None:
    """Serve a segmentation model over HTTP.

    Every setting is also an environment variable, such as PPOOL_MAX_BODY_BYTES. The command line
    wins over the environment, the environment over the file.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        settings = load_settings(
            config,
            model=model,
            name=name,
            host=host,
            port=port,
            workers=workers,
            max_batch_size=max_batch_size,
        )
        loaded = load_model(
            settings.model or shipped_model(), name=settings.name, threads=settings.threads
        )
        listener = _listen(settings.host, settings.port)
    except ValueError as error:
        print(f"ppool-serve: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    _announce(loaded, settings, listener)
    _run(loaded, settings, listener)


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


def _announce(model: Model, settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    labels = ", ".join(label.name for label in model.metadata.classes)
    _logger.info("ppool %s, model %s (%s): %s", version("ppool"), model.name, model.file, labels)
    _logger.info(
        "%s kernels on %s, workers %d x threads %d, batches up to %d",
        model.session.kernels,
        model.provider,
        settings.workers,
        settings.threads,
        settings.max_batch_size,
    )
    _logger.info("listening on http://%s, API at http://%s/docs", address, address)


def _run(model: Model, settings: Settings, listener: socket.socket) -> None:
    app = create_app({model.name: model}, settings)
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


class _Server(uvicorn.Server):
    """A server that on a signal says it is draining, serves on for a while, then stops."""

    def __init__(self, config: uvicorn.Config, engine: Engine, drain_delay_seconds: float) -> None:
        super().__init__(config)
        self._engine = engine
        self._drain_delay_seconds = drain_delay_seconds

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
