"""``python -m research``: draw pages and scenes, train on them, the paper's tables and figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ppool._cli import command_line
from ppool.training.cli import SETTINGS
from ppool.training.cli import app as training
from ppool.training.datasets import open_dataset
from research.figure_command import figures
from research.layouts import LAYOUTS, Plan, write_fineshapes
from research.pages import write_dataset
from research.table_command import freeze, table

__all__ = ["app", "main"]

app = command_line("Drawn data, training on it, and the paper's tables and figures.")
app.add_typer(figures, name="figure")
app.command(context_settings=SETTINGS, options_metavar="[OPTIONS] [--SETTING VALUE]...")(table)
app.command()(freeze)
# The commands that train, with the drawn data sets among their names.
app.registered_commands += training.registered_commands


@app.command()
def pages(
    root: Annotated[Path, typer.Argument(help="Folder to write train/ and val/ into.")],
    count: Annotated[int, typer.Option(help="Pages to draw, a tenth of them held out.")] = 1000,
    seed: Annotated[int, typer.Option(help="First seed; page i is drawn from seed + i.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Draw pages with exact labels; continues where an earlier call stopped."""
    write_dataset(root, count, seed=seed, workers=workers, val_share=0.1)


@app.command()
def fineshapes(
    root: Annotated[Path, typer.Argument(help="Folder to write into.")],
    layout: Annotated[str, typer.Option(help=f"Whose files: {', '.join(LAYOUTS)}.")],
    count: Annotated[int, typer.Option(help="Scenes to draw, a fifth of them held out.")] = 1000,
    size: Annotated[str, typer.Option(help="Height and width in pixels.")] = "128x128",
    seed: Annotated[int, typer.Option(help="First seed; scene i is drawn from seed + i.")] = 0,
) -> None:
    """Write drawn scenes in the layout of another data set, to try its commands without it."""
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found:
        raise ValueError(f"--size: expected height x width such as 128x160, got {size!r}")
    write_fineshapes(root, layout, Plan(count, int(found[1]), int(found[2]), seed))
    Console().print(f"wrote {count} scenes in the layout of {layout} to {root}")


@app.command()
def mechanism(
    checkpoints: Annotated[list[Path], typer.Argument(help="checkpoint.pt of trained networks.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    dataset: Annotated[str, typer.Option(help="Its name.")] = "camvid",
    split: Annotated[str, typer.Option(help="Images that none of them was trained on.")] = "val",
    images: Annotated[int, typer.Option(min=1, help="How many, evenly spread.")] = 20,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON to write.")] = Path(
        "mechanism.json"
    ),
) -> None:
    """What the poolings of trained networks do: zeros seen, alpha, gradients, swaps, shifts."""
    from research.mechanism import measure

    measure(checkpoints, open_dataset(dataset, data, split), images, output)


def main() -> None:
    """Run the command line; a mistake of the user is one line, not a traceback."""
    app(prog_name="python -m research")


if __name__ == "__main__":
    main()
