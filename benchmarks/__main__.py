"""``python -m benchmarks`` (``make bench``): measure the kernels, print and store the table."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.kernels import kernels
from benchmarks.measure import write


def main(
    rounds: Annotated[int, typer.Option(help="Timed runs of each contestant.")] = 15,
) -> None:
    """Measure the pooling kernels on this machine's CPU."""
    rows = kernels(rounds)
    contestants = list(rows[0]["milliseconds"])
    ratios = ["fused / MaxPool", "function body / fused"]
    grid = Table("window", "threads", *(f"{name}, ms" for name in contestants), *ratios)
    for row in rows:
        cells = []
        for name in contestants:
            timing = row["milliseconds"][name]
            low, high = timing["quartiles"]
            cells.append(f"{timing['median']:.1f} ({low:.1f}-{high:.1f})")
        grid.add_row(
            row["window"], str(row["threads"]), *cells, *(str(row[ratio]) for ratio in ratios)
        )
    console = Console()
    console.print(f"{rows[0]['input']}, median (quartiles) of {rounds} interleaved rounds")
    console.print(grid)
    console.print(f"wrote {write('kernels', f'python -m benchmarks --rounds {rounds}', rows)}")


if __name__ == "__main__":
    typer.run(main)
