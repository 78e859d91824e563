"""The shipped model with int8 convolutions against float32: mean IoU, time, time by operator.

Usage: python -m benchmarks.precision CALIBRATION VALIDATION; ``python -m research pages`` draws
both.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.measure import contest, write
from benchmarks.page import write_page
from ppool import custom_ops_library
from ppool.export import lower_precision, score
from ppool.runtime import ALPHA_SWITCH, LOGITS_SWITCH, make_session
from ppool.service.models import shipped_model

SIDE = 512
Pages = Sequence[NDArray[np.uint8]]


def main(
    calibration: Annotated[Path, typer.Argument(exists=True, help="Folder of images.")],
    validation: Annotated[
        Path, typer.Argument(exists=True, help="Folder with images/ and masks/.")
    ],
    limit: Annotated[int, typer.Option(min=1, help="Images to compare on.")] = 40,
    rounds: Annotated[int, typer.Option(min=3, help="Timed runs of each over 8 pages.")] = 15,
) -> None:
    """Measure, write ``results/precision.json`` and the page."""
    pages = [_page(file) for file in sorted((validation / "images").iterdir())[:8]]
    with tempfile.TemporaryDirectory() as folder:
        int8 = Path(folder) / "int8.onnx"
        lower_precision(shipped_model(), int8, "int8", calibration=calibration)
        files = {"fp32": shipped_model(), "int8": int8}
        results = {
            "speed": [_speed(files, pages, threads, rounds) for threads in (1, 2)],
            "operators": {name: _operators(file, pages) for name, file in files.items()},
            "files": [
                {"precision": name, **asdict(score(file, validation, limit=limit))}
                for name, file in files.items()
            ],
        }
    command = f"python -m benchmarks.precision CALIBRATION VALIDATION --limit {limit}"
    console = Console()
    console.print(results["files"], results["speed"])
    console.print(f"wrote {write('precision', f'{command} --rounds {rounds}', results)}")
    console.print(f"wrote {write_page()}")


def _page(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE)))[None]


def _speed(files: Mapping[str, Path], pages: Pages, threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of all pages, one after the other, and how many times faster int8 is."""
    sessions = {name: make_session(file, intra_op_threads=threads) for name, file in files.items()}
    runs = {
        name: lambda s=session: [s.run(["mask"], {"image": page}) for page in pages]
        for name, session in sessions.items()
    }
    # On one thread the time that other processes take can be left out.
    clock = time.thread_time if threads == 1 else time.perf_counter
    result = contest(runs, [("fp32", "int8")], rounds=rounds, warmup=1, clock=clock)
    shape = list(pages[0].shape)
    return {"pages": len(pages), "input": shape, "threads": threads, **result}


def _operators(file: Path, pages: Pages) -> dict[str, dict[str, float]]:
    """Nodes and milliseconds an image of each operator on one thread, by ONNX Runtime's profiler.

    The milliseconds are the sum of each node's median.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        if library := custom_ops_library():
            options.register_custom_ops_library(library)
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        off = {name: np.array(False) for name in (ALPHA_SWITCH, LOGITS_SWITCH)}
        for page in [*pages, *pages, *pages]:
            session.run(["mask"], {"image": page, **off})
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"]][event["name"]].append(event["dur"] / 1e3)
    return {
        operator: {"nodes": len(nodes), "milliseconds": round(sum(map(median, nodes.values())), 3)}
        for operator, nodes in times.items()
    }


if __name__ == "__main__":
    typer.run(main)
