"""Interleaved timing and the record kept of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from ppool.provenance import provenance

__all__ = ["RESULTS", "contest", "spread", "write"]

RESULTS = Path(__file__).parent / "results"


def contest(
    contestants: Mapping[str, Callable[[], object]],
    ratios: Sequence[tuple[str, str]],
    *,
    rounds: int,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time every contestant once a round, in turn, so that a drifting machine hurts all alike.

    For work on one thread ``clock=time.thread_time`` leaves out what other processes took.

    Returns:
        ``milliseconds`` of each contestant and ``ratios`` named ``"a / b"``: the median, the
        quartiles and, least disturbed by other processes, the ratio of the best rounds.
    """
    for _ in range(warmup):
        for run in contestants.values():
            run()
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = clock()
            run()
            seen[name].append((clock() - start) * 1e3)
    return {
        "milliseconds": {name: spread(values) for name, values in seen.items()},
        "ratios": {
            f"{a} / {b}": {
                **spread([x / y for x, y in zip(seen[a], seen[b], strict=True)]),
                "best": round(min(seen[a]) / min(seen[b]), 3),
            }
            for a, b in ratios
        },
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and minimum, to three digits after the point."""
    low, _, high = quantiles(values, n=4)
    numbers = {"median": round(median(values), 3), "best": round(min(values), 3)}
    return {**numbers, "quartiles": [round(low, 3), round(high, 3)]}


def write(name: str, command: str, results: Any, **more: str) -> Path:
    """Store ``results`` as ``benchmarks/results/<name>.json`` with where they come from.

    ``more`` goes beside commit, versions and processor.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"command": command, **provenance(), **more, "results": results}
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path
