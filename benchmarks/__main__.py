"""``python -m benchmarks`` (``make bench``): measure on the CPU, store, write the page."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.kernels import kernels
from benchmarks.measure import write
from benchmarks.networks import NETWORKS, networks
from benchmarks.page import write_page
from benchmarks.training_step import training_step
from ppool._library import library_info


class Part(StrEnum):
    """What can be measured apart; each has its file of results."""

    KERNELS = "kernels"
    NETWORKS = "networks"
    TRAINING_STEP = "training-step"


def main(
    rounds: Annotated[int, typer.Option(min=3, help="Timed runs of each contestant.")] = 15,
    network: Annotated[
        list[str] | None, typer.Option(help=f"Networks to run, of {', '.join(NETWORKS)}.")
    ] = None,
    part: Annotated[list[Part] | None, typer.Option(help="Measure this only.")] = None,
) -> None:
    """Measure kernels, networks and a training step on this machine's CPU."""
    names = network or ["unet_small", "vgg16"]
    if not set(names) <= set(NETWORKS):
        raise typer.BadParameter(f"expected some of {', '.join(NETWORKS)}; got {names!r}")
    measure: dict[Part, Callable[[], Any]] = {
        Part.KERNELS: lambda: kernels(rounds),
        Part.NETWORKS: lambda: networks(names, rounds),
        Part.TRAINING_STEP: lambda: training_step(rounds),
    }
    console = Console()
    options = "".join(f" --network {name}" for name in network or [])
    info = library_info()
    for name in part or list(Part):
        console.print(f"measuring: {name}")
        command = f"python -m benchmarks --rounds {rounds}{options} --part {name}"
        instruction_set = info.instruction_set if info else "no"
        write(name, command, measure[name](), instruction_set=instruction_set)
    console.print(f"wrote {write_page()}")


if __name__ == "__main__":
    typer.run(main)
