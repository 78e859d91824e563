"""The command ``ppool-serve``: settings, model, socket, server."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
import uvicorn
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from ppool._version import __version__, print_version
from service.app import create_app
from service.connection import limited
from service.cores import usable_cores
from service.engine import Engine
from service.fleet import Fleet
from service.images import ImageLimits
from service.logs import configure_logging
from service.metrics import Metrics
from service.models import model_files, shipped_model
from service.settings import Settings, load_settings
from service.tracing import exporting_provider
from service.workers import launch_process

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["main"]

_logger = logging.getLogger("ppool.service")

_cli = typer.Typer(add_completion=False, rich_markup_mode=None)

_COMMANDS = {"serve", "tune", "segment"}


@_cli.command(epilog="Also: ppool-serve tune --help, ppool-serve segment --help.")
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
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=print_version, help="Print the version."),
    ] = False,
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
        tracing = exporting_provider()
        listener = _listen(settings.host, settings.port)
    except ValueError as error:
        _complain(str(error))
        raise SystemExit(2) from error
    _announce(listener)
    _run(settings, listener, tracing)


@_cli.command()
def tune(
    model: Annotated[Path | None, typer.Argument(help="ONNX file; none: the shipped one.")] = None,
    seconds: Annotated[float, typer.Option(help="Time to spend on it.")] = 30.0,
    config: Annotated[
        Path | None, typer.Option(envvar="PPOOL_CONFIG", help="Settings file, TOML.")
    ] = None,
) -> None:
    """Measure which workers, threads and batch size are fastest here, and print the table.

    What the settings fix stays fixed.
    """
    try:
        settings = load_settings(config, model=[model] if model else None, tune_seconds=0)
        fleet = asyncio.run(_tuned(settings, seconds))
    except ValueError as error:
        _complain(str(error))
        raise SystemExit(2) from error
    table = Table("workers", "threads", "batch", "images/s")
    for cell in fleet.cells:
        best = "bold" if cell.plan == fleet.plan else None
        numbers = (cell.plan.workers, cell.plan.threads, cell.plan.batch)
        table.add_row(*map(str, numbers), f"{cell.images_per_second:.1f}", style=best)
    plan = fleet.plan
    console = Console()
    console.print(table)
    console.print(
        f"PPOOL_WORKERS={plan.workers} PPOOL_THREADS={plan.threads} "
        f"PPOOL_MAX_BATCH_SIZE={plan.batch}"
    )


@_cli.command("segment")
def segment_command(
    photos: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder.")],
    masks: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for masks and summary.csv.")
    ],
    model: Annotated[Path | None, typer.Option(help="ONNX file; none: the shipped one.")] = None,
    overlay: Annotated[bool, typer.Option(help="Blend the classes over the photo.")] = False,
    tile: Annotated[bool, typer.Option(help="Full resolution, in windows.")] = False,
    config: Annotated[
        Path | None, typer.Option(envvar="PPOOL_CONFIG", help="Settings file, TOML.")
    ] = None,
) -> None:
    """Segment a folder of photos with no server; started again it does what is missing.

    The exit status is 1 if any photo failed.
    """
    # Only here: the server itself needs no ONNX Runtime, its workers do.
    from service.folder import Folder, segment_folder
    from service.inference import load_segmenter

    try:
        settings = load_settings(config, model=[model] if model else None)
        file, *_ = model_files(settings.model) or [shipped_model()]
        segmenter = load_segmenter(file, threads=settings.threads or 1)
        work = Folder(photos, masks, overlay, tile, settings.workers or usable_cores())
        limits = ImageLimits(settings.max_pixels, settings.max_side_pixels, settings.max_frames)
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
            bar = progress.add_task("segmenting")

            def done(name: str, problem: str) -> None:
                progress.advance(bar)
                if problem:
                    _complain(f"{name}: {problem}")

            failures = segment_folder(
                work,
                segmenter,
                limits,
                started=lambda total: progress.update(bar, total=total),
                done=done,
            )
    except ValueError as error:
        _complain(str(error))
        raise SystemExit(2) from error
    raise SystemExit(1 if failures else 0)


def main() -> None:
    """Entry point of ``ppool-serve`` and ``python -m service``; to serve needs no command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in _COMMANDS:
        arguments.insert(0, "serve")
    _cli(arguments, prog_name="ppool-serve")


async def _tuned(settings: Settings, seconds: float) -> Fleet:
    fleet = Fleet(settings, launch_process, lambda: None, lambda *_: None, Metrics())
    try:
        await fleet.start()
        await fleet.tune(seconds, thorough=True)
    finally:
        await fleet.close()
    return fleet


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
        __version__,
        address,
        address,
    )


def _complain(reason: str) -> None:
    print(f"ppool-serve: {reason}", file=sys.stderr)


def _run(settings: Settings, listener: socket.socket, tracing: TracerProvider | None) -> None:
    failures: list[str] = []

    def failed(reason: str) -> None:
        failures.append(reason)
        server.should_exit = True

    app = create_app(settings, failed=failed, tracing=tracing)
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
