"""Interleaved timing and the record kept of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from training.provenance import provenance

__all__ = ["RESULTS", "Timing", "interleaved", "write"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one contestant over all rounds."""

    median: float
    quartiles: tuple[float, float]

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Timing:
        """Summarise the rounds."""
        low, _, high = quantiles(milliseconds, n=4)
        return cls(round(median(milliseconds), 3), (round(low, 3), round(high, 3)))


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every contestant once a round, in turn, so that a drifting machine hurts all alike.

    For work on one thread ``clock=time.thread_time`` leaves out what other processes took.
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
    return {name: Timing.of(milliseconds) for name, milliseconds in seen.items()}


def write(name: str, command: str, results: Any) -> Path:
    """Store ``results`` as ``benchmarks/results/<name>.json`` with where they come from."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"command": command, **provenance(), "results": results}
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path
