"""The command line: export a checkpoint, or print what an exported file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from ppool._cli import command_line

__all__ = ["app"]


Exported = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="File written by ppool export.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", dir_okay=False, help="Where the new file goes.")
]
Name = Annotated[
    str | None, typer.Option(help="Name to serve the model as; default: the file's name.")
]

app = command_line("Turn a network into one ONNX file.")


@app.command("export")
def export_command(
    checkpoint: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="File written by ppool train.")
    ],
    output: Output,
    name: Name = None,
    max_side: Annotated[
        int | None,
        typer.Option(help="Longest side in pixels to feed; default: the checkpoint's."),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Markdown on data, scores and limits, to serve with it.",
        ),
    ] = None,
    ink: Annotated[
        list[str] | None,
        typer.Option(
            help="A class of marks on a ground; may be repeated. On each photo their border is "
            "moved to between the mean greys of both around it; what shines through is left out."
        ),
    ] = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option(
            help="A class of those that are alike and come in blocks, such as print and "
            "handwriting; give each. Pixels of them are called as those around them are."
        ),
    ] = None,
    whole: Annotated[
        str | None,
        typer.Option(
            help="The class of photos that are one thing all over, such as picture: where most of "
            "a photo is, the rest is more likely to be; where nothing surely is, none of it is."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare with PyTorch before the file appears.")
    ] = True,
) -> None:
    """Export a checkpoint to one ONNX file."""
    from ppool.export import Behind, VerificationError, export_checkpoint
    from ppool.export._info import comparison_table

    console = Console()
    try:
        with console.status("exporting"):
            description = export_checkpoint(
                checkpoint,
                output,
                name=name,
                max_side=max_side,
                card="" if card is None else card.read_text("utf-8"),
                behind=Behind(ink or (), blocks or (), whole),
                check=check,
            )
    except VerificationError as error:
        console.print(comparison_table(error.comparisons))
        raise ValueError(str(error)) from error
    checked = "agrees with PyTorch" if check else "not compared with PyTorch"
    console.print(
        f"{output}: {len(description.classes)} classes, {len(description.stages)} alpha maps, "
        f"{decimal(output.stat().st_size)}; {checked}",
        highlight=False,
        soft_wrap=True,
    )


@app.command("precision")
def precision_command(
    model: Exported,
    output: Output,
    precision: Annotated[
        Literal["fp16", "int8"], typer.Option(help="fp16, for GPUs, or int8, for CPUs.")
    ],
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of images as the model will see; for int8.")
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Folder with images/ and masks/: compare mean IoU and CPU time; the new file then "
            "says what it loses, and PPOOL_PRECISION=auto can serve it."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Compare on so many images.")] = None,
) -> None:
    """Convert a MODEL to smaller numbers; pooling keeps its precision."""
    from ppool.export import lower_precision

    console = Console()
    with console.status("converting"):
        scores = lower_precision(
            model, output, precision, calibration=calibration, validation=validation, limit=limit
        )
    console.print(f"{output}: {decimal(output.stat().st_size)}", highlight=False)
    if not scores:
        return
    grid = Table("file", "size", "mean IoU", "CPU ms, one thread")
    for file, found in zip((model, output), scores, strict=True):
        iou = f"{100 * found.mean_iou:.2f} %"
        grid.add_row(file.name, decimal(found.bytes), iou, f"{found.milliseconds:.1f}")
    console.print(grid)


@app.command("info")
def info_command(model: Exported) -> None:
    """Print what an exported file holds."""
    from ppool.export._info import print_info

    print_info(model, Console())


@app.command("tensorrt")
def tensorrt_command(
    model: Exported,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            dir_okay=False,
            help="Where the engine goes; default: beside the model.",
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Most images at a time.")] = 1,
    max_side: Annotated[
        int | None, typer.Option(help="Longest side in pixels; default: the model's own limit.")
    ] = None,
    plugin: Annotated[
        bool, typer.Option(help="Use the plugins, or TensorRT's own layers for the same.")
    ] = True,
) -> None:
    """Build a TensorRT engine for this machine's GPU, and print how trtexec builds it."""
    from ppool.export import _tensorrt as trt
    from ppool.export._files import read_exported, save_whole

    engine = model.with_suffix(".engine") if output is None else output
    console = Console()
    loaded, description = read_exported(model)
    shapes = trt.Shapes.of(loaded, description.input, trt.Limits(max_batch, max_side))
    library = trt.plugin_library()
    named = library or Path("_tensorrt.so")
    built = "" if library else " (not built here: make tensorrt)"
    for title, choice in ((f"with the plugins{built}", named), ("without them", None)):
        line = trt.trtexec(model, engine, shapes, choice)
        console.print(f"{title}:\n  {line}", markup=False, highlight=False, soft_wrap=True)
    with console.status("building"):
        content = trt.build_engine(loaded, shapes, library if plugin else None)
    save_whole(content, engine)
    console.print(f"{engine}: {decimal(len(content))}", highlight=False, soft_wrap=True)
