"""The shipped model with int8 convolutions against float32: mean IoU, CPU time, size.

Usage: python -m benchmarks.precision CALIBRATION VALIDATION (``ppool-train pages`` draws both)
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.measure import write
from export import lower_precision, score
from service.models import shipped_model


def main(
    calibration: Annotated[Path, typer.Argument(help="Folder of images.")],
    validation: Annotated[Path, typer.Argument(help="Folder with images/ and masks/.")],
    limit: Annotated[int, typer.Option(help="Images to compare on.")] = 40,
    rounds: Annotated[int, typer.Option(help="Alternating measurements of each.")] = 2,
) -> None:
    """Measure and write ``results/precision.json``."""
    with tempfile.TemporaryDirectory() as folder:
        int8 = Path(folder) / "int8.onnx"
        lower_precision(shipped_model(), int8, "int8", calibration=calibration)
        files = {"fp32": shipped_model(), "int8": int8}
        rows = [
            {"precision": name, "round": index, **asdict(score(file, validation, limit=limit))}
            for index in range(rounds)
            for name, file in files.items()
        ]
    command = f"python -m benchmarks.precision CALIBRATION VALIDATION --limit {limit}"
    console = Console()
    console.print(rows)
    console.print(f"wrote {write('precision', f'{command} --rounds {rounds}', rows)}")


if __name__ == "__main__":
    typer.run(main)
