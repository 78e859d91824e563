"""``ppool serve``, ``tune`` and ``segment``."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ppool._cli import MisuseError, command_line, complain, describe
from ppool._version import __version__
from ppool.service.listening import listen
from ppool.service.logs import configure_logging
from ppool.service.models import shipped_model
from ppool.service.settings import Settings, describe_settings, load_settings
from ppool.service.store import ModelPlaces
from ppool.service.workers.cores import usable_cores
from ppool.service.workers.forking import launch_early

if TYPE_CHECKING:
    from ppool.service.engine import Engine
    from ppool.service.folder import Run
    from ppool.service.folder.cluster import ClusterRun
    from ppool.service.folder.report import Report
    from ppool.service.http.app import Beside
    from ppool.service.models import Model

__all__ = ["app"]

_logger = logging.getLogger("ppool.service")

app = command_line("Segment photos.")

Config = Annotated[Path | None, typer.Option(envvar="PPOOL_CONFIG", help="Settings file, TOML.")]


def _every_setting() -> str:
    rows = (f"  {name} [{default}]\n      {text}" for name, default, text in describe_settings())
    # The letter keeps lines as they are.
    return "\b\nSettings, [their defaults]:\n" + "\n".join(rows).replace(" []", "")


@app.command(epilog=_every_setting())
def serve(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            help="ONNX files of `ppool export`, folders, or URLs of s3://, gs://, https:// or "
            "oci://; pages-int8: the shipped one in int8."
        ),
    ] = None,
    model_dir: Annotated[
        str | None, typer.Option("--model_dir", help="One more of them, as KServe gives it.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", "--model_name", help="Serve the model under this name."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", "--http_port", help="Port; 0 takes a free one [8000]."),
    ] = None,
    uds: Annotated[Path | None, typer.Option(help="Unix socket to listen on instead.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes [measured].")] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="Images in an inference [measured].")
    ] = None,
    config: Config = None,
) -> None:
    """Serve segmentation models over HTTP.

    Every setting is an environment variable, too, and a key of the file, in small letters and
    without PPOOL_. The command line wins over the environment, the environment over the file.
    SIGHUP looks for changed models.
    """
    settings = _settings(
        config,
        model=[*(model or ()), *([model_dir] if model_dir else ())] or None,
        name=name,
        host=host,
        port=port,
        uds=uds,
        workers=workers,
        max_batch_size=max_batch_size,
    )
    # The workers' too, wherever the setting came from.
    os.environ |= {"PPOOL_LOG_FORMAT": settings.log_format, "PPOOL_LOG_LEVEL": settings.log_level}
    launch = launch_early(settings)
    configure_logging(settings.log_format, settings.log_level)
    try:
        listener, address = listen(settings.host, settings.port, settings.uds)
    except ValueError as error:
        raise MisuseError(str(error)) from error
    _logger.info("ppool %s, listening on %s, API at %s/docs", __version__, address, address)
    # Only here: workers start while this process imports the web framework, which makes a lot
    # of objects that stay. Looking for garbage among them takes a tenth of a second.
    gc.disable()
    from ppool.service.http.server import run

    beside = None if settings.grpc_port is None else _grpc(settings, settings.grpc_port)
    gc.freeze()
    gc.enable()
    try:
        run(settings, listener, launch, beside)
    finally:
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)


def _grpc(settings: Settings, port: int) -> Beside:
    try:
        from ppool.service.rpc.server import RpcServer
    except ImportError as error:
        raise MisuseError(
            "PPOOL_GRPC_PORT is set, but grpcio is not installed; install ppool[grpc]"
        ) from error
    return RpcServer(settings, port)


@app.command()
def tune(
    model: Annotated[
        str | None, typer.Argument(help="ONNX file or URL; none: the shipped one.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time to spend on it.")] = 30.0,
    config: Config = None,
) -> None:
    """Measure which workers, threads and batch size are fastest here, and print the table.

    What the settings fix stays fixed.
    """
    from rich.console import Console
    from rich.table import Table

    settings = _settings(config, model=[model] if model else None, tune_seconds=0)
    engine = asyncio.run(_tuned(settings, seconds))
    table = Table("workers", "threads", "batch", "images/s")
    for cell in engine.tuner.cells:
        best = "bold" if cell.plan == engine.pool.plan else None
        numbers = (cell.plan.workers, cell.plan.threads, cell.plan.batch)
        table.add_row(*map(str, numbers), f"{cell.images_per_second:.1f}", style=best)
    plan = engine.pool.plan
    console = Console()
    console.print(table)
    console.print(
        f"PPOOL_WORKERS={plan.workers} PPOOL_THREADS={plan.threads} "
        f"PPOOL_MAX_BATCH_SIZE={plan.batch}"
    )


@app.command("segment")
def segment_command(
    photos: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders with all in them, or patterns in quotes; with --engine ray also "
            "an s3:// or gs:// URL, or .parquet with the columns name and bytes."
        ),
    ],
    masks: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="Folder for the answers; for ray also a URL, or .parquet."
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="ONNX file or URL; none: the shipped one.")
    ] = None,
    write: Annotated[
        str,
        typer.Option(
            help="Answers for each page, commas between: mask, overlay, probability, polygons, "
            "coco, components, json."
        ),
    ] = "mask",
    cutout: Annotated[
        str | None, typer.Option(help="Also the photo with nothing but these classes.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Leave these classes only.")] = None,
    tile: Annotated[bool, typer.Option(help="Full resolution, in windows.")] = False,
    dpi: Annotated[int, typer.Option(min=1, max=2400, help="Pixels an inch of PDF pages.")] = 200,
    force: Annotated[bool, typer.Option(help="Also what is finished.")] = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="This process, or a Ray cluster (RAY_ADDRESS), with ppool[ray]."),
    ] = "local",
    config: Config = None,
) -> None:
    """Segment a folder of photos with no server; started again it does what is missing.

    Every page of a TIFF and, with ppool[pdf], of a PDF gets its own files. A page is finished if
    its files are whole and of this photo, model and options; those of others are refused. What is
    no photo is skipped and listed. The last line counts, and the exit status is 1 if anything
    failed.
    """
    from rich.console import Console

    # Only here: the server itself needs no ONNX Runtime, its workers do.
    from ppool.service.codecs.header import ImageLimits
    from ppool.service.folder import ENDS, SUFFIXES, Job, Run, Summary, find_photos
    from ppool.service.folder.report import Report
    from ppool.service.workers.inference import load_segmenter

    settings = _settings(config, model=[model] if model else None)
    file = _first_file(settings)
    try:
        outputs = _words(f"{write},cutout" if cutout else write, ENDS)
        workers = settings.workers or usable_cores()
        job = Job(outputs, tile, dpi, classes, cutout, workers, settings.max_batch_size or 1)
    except ValueError as error:
        raise MisuseError(f"--write: {error}") from error
    limits = ImageLimits(settings.max_pixels, settings.max_side_pixels, settings.max_frames)
    report = Report(Console(stderr=True))
    # On a thread, so that a signal need not wait for it.
    with ThreadPoolExecutor(1) as aside:
        loading = aside.submit(load_segmenter, file, threads=settings.threads or 1)
        segmenter = loading.result()
    run: Run | ClusterRun
    try:
        if engine == "ray":
            job = replace(job, workers=settings.workers or 0)
            order = (file.read_bytes(), job, limits, settings.threads or 1, masks, force)
            run = _on_ray(order, photos, segmenter.model)
        else:
            job.answer(segmenter.model)
            folder = Path(masks).resolve()
            found = find_photos([Path(photo) for photo in photos], folder)
            if not found.photos and not found.failed:
                raise ValueError(f"expected photos ({', '.join(sorted(SUFFIXES))}), found none")
            names = [label.name for label in segmenter.model.classes]
            sha256 = segmenter.model.sha256
            summary = Summary(folder, names, sha256, job.options, force=force)
            run = Run(job, found, summary, segmenter, limits)
    except ValueError as error:
        raise MisuseError(str(error)) from error
    except OSError as error:  # of a store
        raise MisuseError(describe(error)) from error
    report.found(run.found)
    if status := _worked(run, report):
        # Not through the interpreter's teardown: a thread may be inside the model.
        os._exit(status)
    raise typer.Exit(1 if run.counts.failed else 0)


def _worked(run: Run | ClusterRun, report: Report) -> int:
    """The exit status of a run, which it tells of; 0 if it got to its end."""
    status, complaint = 0, ""
    try:
        with report, _stopping(run) as stopped:
            if not run.work(report):
                status = 128 + stopped[0]
    except OSError as error:
        status, complaint = 1, describe(error)
    report.sum_up(run.counts.written, run.written)
    if complaint:
        complain(complaint)
    print(run.counts, flush=True)
    return status


def _on_ray(order: tuple[Any, ...], photos: list[str], model: Model) -> ClusterRun:
    try:
        from ppool.service.folder.cluster import ClusterRun, Order
    except ImportError as error:
        raise MisuseError("--engine ray: needs `pip install 'ppool[ray]'`") from error
    return ClusterRun(Order(*order), photos, model)


def _words(text: str, known: Collection[str]) -> tuple[str, ...]:
    """The words between commas, in the order of ``known``."""
    given = {word.strip() for word in text.split(",")}
    if unknown := given.difference(known):
        raise ValueError(f"expected some of {', '.join(known)}, got {min(unknown)!r}")
    return tuple(word for word in known if word in given)


@contextmanager
def _stopping(run: Run | ClusterRun) -> Iterator[list[int]]:
    """Stop at a signal, whose number is in the list then, and end at a second one."""
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        if stopped:
            os._exit(128 + number)
        stopped.append(number)
        run.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    yield stopped


def _settings(config: Path | None, **given: Any) -> Settings:
    try:
        settings = load_settings(config, **given)
        ModelPlaces.check(settings.model)
    except ValueError as error:
        raise MisuseError(str(error)) from error
    return settings


def _first_file(settings: Settings) -> Path:
    place = next(iter(settings.model), shipped_model())
    try:
        return ModelPlaces(settings.model_cache).at_start(place)[0]
    except ValueError as error:
        raise MisuseError(str(error)) from error


async def _tuned(settings: Settings, seconds: float) -> Engine:
    from ppool.service.engine import Engine
    from ppool.service.metrics import Metrics

    engine = Engine(settings, Metrics())
    try:
        await engine.start()
        await engine.tuner.tune(seconds, thorough=True)
    finally:
        await engine.close()
    return engine
