"""The command line of ``python -m research figure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ppool.training.datasets import open_dataset

__all__ = ["figures"]

figures = typer.Typer(help="Draw a figure of the paper as PNG and SVG.", no_args_is_help=True)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")]


@figures.command("2")
def figure_2(output: Output = Path("figures")) -> None:
    """What each pooling leaves of single points and thin lines."""
    from research.figures.toy import draw_toy

    _report(draw_toy(output))


@figures.command("3")
def figure_3(output: Output = Path("figures")) -> None:
    """Poolings of two numbers as surfaces, P-pooling's gradients, Lp pooling's problems."""
    from research.figures.surfaces import draw_surfaces

    _report(draw_surfaces(output))


@figures.command("5")
def figure_5(
    results: Annotated[
        Path, typer.Argument(help="JSON written by `python -m research compare` or `table`.")
    ],
    output: Output = Path("figures"),
    pooling: Annotated[str, typer.Option(help="The pooling that gains.")] = "ppool",
    over: Annotated[str, typer.Option(help="What it is compared with.")] = "max",
) -> None:
    """What each class gains when one pooling takes another's place."""
    from research.figures.gains import draw_gains

    _report(draw_gains(results, output, pooling, over))


@figures.command("6")
def figure_6(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.pt of a P-pooling network.")],
    photo: Annotated[Path, typer.Argument(help="An image file.")],
    output: Output = Path("figures"),
) -> None:
    """The alpha maps of a checkpoint on a photo, and every channel's mean."""
    from research.figures.alpha_maps import draw_alpha_maps

    _report(draw_alpha_maps(checkpoint, photo, output))


@figures.command("masks")
def masks(
    checkpoints: Annotated[list[Path], typer.Argument(help="checkpoint.pt of trained networks.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    dataset: Annotated[str, typer.Option(help="Its name.")] = "camvid",
    split: Annotated[str, typer.Option(help="Images that none of them was trained on.")] = "test",
    given: Annotated[
        bool, typer.Option(help="Show photographs and labels, too, which may not be published.")
    ] = True,
    output: Output = Path("figures"),
) -> None:
    """Masks of ten photographs that a rule chooses, side by side, as one PNG."""
    from research.figures.masks import draw_masks

    _report(draw_masks(checkpoints, open_dataset(dataset, data, split), output, given=given))


@figures.command("mechanism")
def mechanism(
    measured: Annotated[
        Path, typer.Argument(help="JSON written by `python -m research mechanism`.")
    ],
    output: Output = Path("figures"),
) -> None:
    """Zeros, results, alpha, gradients, swaps and shifts of trained networks side by side."""
    from research.figures.mechanism import draw_mechanism

    _report(draw_mechanism(measured, output))


def _report(paths: list[Path]) -> None:
    console = Console()
    for path in paths:
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
