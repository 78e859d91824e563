"""Renders docs/benchmarks.md from the stored results of ``python -m benchmarks``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS

__all__ = ["render", "stored", "table", "write_page"]

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
LISTED_MILLISECONDS = 0.1


def write_page() -> Path:
    """Write the page from the newest results and say where it is."""
    PAGE.write_text(render(stored()))
    return PAGE


def stored() -> dict[str, dict[str, Any]]:
    """The documents by name."""
    return {
        name: json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("kernels", "networks", "training-step", "precision")
    }


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
            "`make bench` measures all of this but int8 again and rewrites the page. Contestants",
            "take turns, round by round; a ratio is the median over the rounds, with its",
            "quartiles, and *best* the ratio of the best rounds. Below 1 the first is faster.",
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
            *table(
                ["input", "window", "threads", "unit, ms", "MaxPool, ms", "unit / MaxPool", "best",
                 "bandwidth"],
                [[_shape(row["input"]), row["window"], row["threads"], _time(row, "unit"),
                  _time(row, "MaxPool"), *_ratio(row, "unit / MaxPool"),
                  row["share_of_copy_bandwidth"]] for row in kernels["pooling"]],
            ),
            "",
            "The same node without the native library runs as its portable function body:",
            "",
            *table(
                ["input", "window", "threads", "function body, ms", "function body / unit", "best"],
                [[_shape(row["input"]), row["window"], row["threads"], _time(row, "function body"),
                  *_ratio(row, "function body / unit")]
                 for row in kernels["pooling"] if "function body" in row["milliseconds"]],
            ),
            "",
            "## Labels from logits",
            "",
            *table(
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
            *table(
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
            *table(
                ["input", "threads", "P-pooling, ms", "max pooling, ms", "P / max", "best"],
                [[_shape(row["input"]), row["threads"], _time(row, "ppool"), _time(row, "max"),
                  *_ratio(row, "ppool / max")] for row in training],
            ),
            "",
            *_precision(stored["precision"]["results"]),
        ]
    )  # fmt: skip


def _precision(results: Mapping[str, Any]) -> list[str]:
    """The section about int8."""
    full, small = results["files"]
    return [
        "## int8",
        "",
        "The model that shipped until 2026-11-28 and `ppool precision --precision int8` of it: by",
        "`python -m benchmarks.precision` on drawn pages that neither training nor calibration",
        f"saw, mean IoU {100 * full['mean_iou']:.1f} and {100 * small['mean_iou']:.1f} %, size "
        f"{full['bytes'] / 1e3:.0f} and {small['bytes'] / 1e3:.0f} kB. Of several pages, one",
        "after the other, uint8 image in, uint8 mask out:",
        "",
        *table(
            ["pages", "input", "threads", "float32, ms", "int8, ms", "float32 / int8", "best"],
            [[row["pages"], _shape(row["input"]), row["threads"], _time(row, "fp32"),
              _time(row, "int8"), *_ratio(row, "fp32 / int8")] for row in results["speed"]],
        ),
        "",
        "Where an image of 512 x 512 spends its time on one thread, by ONNX Runtime's profiler:",
        "",
        *table(
            ["operator", "float32, nodes", "ms", "int8, nodes", "ms"],
            list(_operator_rows(results["operators"]["fp32"], results["operators"]["int8"])),
        ),
        "",
    ]  # fmt: skip


def _operator_rows(*columns: Mapping[str, Mapping[str, float]]) -> Iterator[list[object]]:
    """Nodes and milliseconds in each column, the costliest first, small ones together."""
    most: dict[str, float] = {}
    for column in columns:
        for name, spent in column.items():
            most[name] = max(most.get(name, 0), spent["milliseconds"])
    names = sorted(most, key=lambda name: -most[name])
    listed = [name for name in names if most[name] >= LISTED_MILLISECONDS]
    for label, group in [*((name, [name]) for name in listed), ("others", names[len(listed) :])]:
        row: list[object] = [label]
        for column in columns:
            found = [column[name] for name in group if name in column]
            row += [sum(int(spent["nodes"]) for spent in found)]
            row += [f"{sum(spent['milliseconds'] for spent in found):.2f}"]
        yield row
    totals = (sum(spent["milliseconds"] for spent in column.values()) for column in columns)
    yield ["all", *(cell for total in totals for cell in ("", f"{total:.2f}"))]


def _provenance(stored: Mapping[str, Mapping[str, Any]]) -> str:
    kernels = stored["kernels"]
    versions = kernels["versions"]
    return (
        f"{kernels['processor']}, {kernels['instruction_set']} kernels; ONNX Runtime "
        f"{versions['onnxruntime']}, PyTorch {versions['torch']}; commit {kernels['commit']}."
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table."""
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
