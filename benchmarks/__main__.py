"""``python -m benchmarks`` (``make bench``): measure on the CPU, store, write the page."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from benchmarks.kernels import kernels
from benchmarks.measure import write
from benchmarks.networks import NETWORKS, networks
from benchmarks.page import write_page
from benchmarks.training_step import training_step
from ppool._library import library_info


def main(
    rounds: Annotated[int, typer.Option(min=3, help="Timed runs of each contestant.")] = 15,
    network: Annotated[
        list[str] | None, typer.Option(help=f"Networks to run, of {', '.join(NETWORKS)}.")
    ] = None,
) -> None:
    """Measure kernels, networks and a training step on this machine's CPU."""
    console = Console()
    names = network or ["unet_small", "vgg16"]
    options = "".join(f" --network {name}" for name in network or [])
    command = f"python -m benchmarks --rounds {rounds}{options}"
    info = library_info()
    more = {"instruction_set": info.instruction_set if info else "no"}
    console.print("kernels: about three minutes")
    write("kernels", command, kernels(rounds), **more)
    console.print(f"networks: {', '.join(names)}")
    write("networks", command, networks(names, max(rounds // 2, 3)), **more)
    console.print("training step")
    write("training-step", command, training_step(rounds), **more)
    console.print(f"wrote {write_page()}")


if __name__ == "__main__":
    typer.run(main)
