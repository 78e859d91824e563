"""The command line: export a checkpoint, or print what an exported file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from typer.core import TyperGroup

__all__ = ["app"]


class _CheckpointFirst(TyperGroup):
    """``ppool-export CHECKPOINT`` is ``ppool-export export CHECKPOINT``."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["export", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_CheckpointFirst,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a checkpoint of ppool-train into one ONNX file: "
    "[bold]ppool-export CHECKPOINT -o model.onnx[/bold]",
    rich_markup_mode="rich",
)


@app.command("export")
def export_command(
    checkpoint: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="File written by ppool-train.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the ONNX file goes.")],
    name: Annotated[
        str | None, typer.Option(help="Name to serve the model as; default: the file's name.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(help="Longest side in pixels to feed; default: the checkpoint's."),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare with PyTorch before the file appears.")
    ] = True,
) -> None:
    """Export CHECKPOINT (the word "export" may be left out)."""
    from export import VerificationError, export_checkpoint
    from export._info import comparison_table

    console = Console()
    try:
        with console.status("exporting"):
            description = export_checkpoint(
                checkpoint, output, name=name, max_side=max_side, check=check
            )
    except VerificationError as error:
        console.print(comparison_table(error.comparisons))
        raise typer.Exit(_complain(str(error))) from None
    except (OSError, ValueError) as error:
        raise typer.Exit(_complain(str(error))) from None
    checked = "agrees with PyTorch" if check else "not compared with PyTorch"
    console.print(
        f"{output}: {len(description.classes)} classes, {len(description.stages)} alpha maps, "
        f"{decimal(output.stat().st_size)}; {checked}",
        highlight=False,
        soft_wrap=True,
    )


@app.command("info")
def info_command(
    model: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="File written by ppool-export.")
    ],
) -> None:
    """Print what an exported file holds."""
    from export._info import print_info

    try:
        print_info(model, Console())
    except (OSError, ValueError) as error:
        raise typer.Exit(_complain(str(error))) from None


def _complain(message: str) -> int:
    """Print an error; the result is the exit status."""
    Console(stderr=True).print(f"ppool-export: {message}", markup=False, soft_wrap=True)
    return 1
