"""Renders docs/benchmarks.md from the stored results of ``python -m benchmarks``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS

__all__ = ["render", "write_page"]

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def write_page() -> Path:
    """Write the page from the newest results and say where it is."""
    stored = {
        name: json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("kernels", "networks", "training-step")
    }
    PAGE.write_text(render(stored))
    return PAGE


def render(stored: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as Markdown; ``stored`` are the documents by name."""
    kernels, networks, training = (
        stored[name]["results"] for name in ("kernels", "networks", "training-step")
    )
    bandwidth = kernels["copy_gigabytes_per_second"]
    return "\n".join(
        [
            "# Benchmarks on the CPU",
            "",
            "`make bench` measures all of this again and rewrites the page. Contestants take",
            "turns, round by round; a ratio is the median over the rounds, with its quartiles,",
            "and *best* the ratio of the best rounds. Below 1 the first is faster.",
            "",
            _provenance(stored),
            "",
            "## Pooling one tensor",
            "",
            "The unit (side branch and pooling, float32, one node in ONNX Runtime) against ONNX",
            "Runtime's MaxPool. *Bandwidth* is what the unit has to read and write, over its time,",
            f"as a share of a copy's rate: {bandwidth['1']} GB/s on one thread and",
            f"{bandwidth['2']} GB/s on two. Above 1 the tensor stays in the caches.",
            "",
            *_table(
                ["input", "window", "threads", "unit, ms", "MaxPool, ms", "unit / MaxPool", "best",
                 "bandwidth"],
                [[_shape(row["input"]), row["window"], row["threads"], _time(row, "unit"),
                  _time(row, "MaxPool"), *_ratio(row, "unit / MaxPool"),
                  row["share_of_copy_bandwidth"]] for row in kernels["pooling"]],
            ),
            "",
            "The same node without the native library runs as its portable function body:",
            "",
            *_table(
                ["input", "window", "threads", "function body, ms", "function body / unit", "best"],
                [[_shape(row["input"]), row["window"], row["threads"], _time(row, "function body"),
                  *_ratio(row, "function body / unit")]
                 for row in kernels["pooling"] if "function body" in row["milliseconds"]],
            ),
            "",
            "## Labels from logits",
            "",
            *_table(
                ["logits", "labels", "threads", "ResizeArgMax, ms", "Resize, ArgMax, Cast, ms",
                 "second / first", "best"],
                [[_shape(row["logits"]), _shape(row["labels"]), row["threads"],
                  _time(row, "ResizeArgMax"), _time(row, "Resize, ArgMax, Cast"),
                  *_ratio(row, "Resize, ArgMax, Cast / ResizeArgMax")]
                 for row in kernels["resize_argmax"]],
            ),
            "",
            "## Whole networks",
            "",
            "An exported network in ONNX Runtime, uint8 image in, uint8 mask out, with P-pooling",
            "and with max pooling in the same places. Memory is the peak of a fresh process.",
            "",
            *_table(
                ["network", "input", "threads", "P-pooling, ms", "max pooling, ms", "P / max",
                 "best", "P, MB", "max, MB"],
                [[row["network"], _shape(row["input"]), row["threads"], _time(row, "ppool"),
                  _time(row, "max"), *_ratio(row, "ppool / max"), row["peak_megabytes"]["ppool"],
                  row["peak_megabytes"]["max"]] for row in networks],
            ),
            "",
            "## Training",
            "",
            "One step of the small network in PyTorch, bfloat16 autocast, channels last.",
            "",
            *_table(
                ["input", "threads", "P-pooling, ms", "max pooling, ms", "P / max", "best"],
                [[_shape(row["input"]), row["threads"], _time(row, "ppool"), _time(row, "max"),
                  *_ratio(row, "ppool / max")] for row in training],
            ),
            "",
        ]
    )  # fmt: skip


def _provenance(stored: Mapping[str, Mapping[str, Any]]) -> str:
    kernels = stored["kernels"]
    versions = kernels["versions"]
    return (
        f"{kernels['processor']}, {kernels['instruction_set']} kernels; ONNX Runtime "
        f"{versions['onnxruntime']}, PyTorch {versions['torch']}; commit {kernels['commit']}."
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)


def _time(row: Mapping[str, Any], name: str) -> str:
    return f"{row['milliseconds'][name]['median']:.3g}"


def _ratio(row: Mapping[str, Any], name: str) -> tuple[str, str]:
    ratio = row["ratios"][name]
    low, high = ratio["quartiles"]
    return f"{ratio['median']:.3g} ({low:.3g} to {high:.3g})", f"{ratio['best']:.3g}"
