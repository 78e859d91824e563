"""Renders docs/serving-speed.md from the stored results of ``python -m benchmarks.serving``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS
from benchmarks.page import table

__all__ = ["render", "stored", "write_page"]

PAGE = Path(__file__).parents[2] / "docs" / "serving-speed.md"
NETWORKS = {
    "tiny-256": "A network of 0.3 billion multiply-adds, trained, 256 x 256",
    "tiny-512": "The same, 512 x 512",
    "vgg16-256": "VGG-16 with random weights, 256 x 256",
}
NAMES = {
    "ppool": "**ppool**",
    "ppool-int8": "ppool, int8",
    "fastapi": "FastAPI, written by hand",
    "litserve": "LitServe",
    "mosec": "mosec",
    "pytriton": "Triton (PyTriton)",
    "bentoml": "BentoML",
    "rayserve": "Ray Serve",
}
OWN = {"ppool", "ppool-int8"}
COLUMNS = (
    "server", "1 client: p50, p99 ms", "8 clients: photos/s", "CPU ms a photo",
    "32 clients: photos/s", "four shapes of photo: photos/s", "150 % load: p99 ms, not answered",
    "start, s", "MB at rest, under load", "same pixels, %",
)  # fmt: skip

# A server that gives another mask may have done less work for it.
LEAST_AGREEMENT = 0.99

_INTRODUCTION = """\
All serve the same network to clients on the same machine that send the same JPEGs of 640 x 480,
with the settings that suit each best on its two cores; `python -m benchmarks.serving` repeats it
and rewrites this page (`--machine NAME` on another kind of processor keeps these results beside
its own). Servers take turns, round by round; figures are medians of the rounds, in brackets the
slowest and the fastest. The machine's own speed wavers by a quarter between rounds, so gaps under
15 % prove nothing.

Every server decodes the whole photo and makes it smaller with a filter that takes every pixel into
account. *Same pixels* is the share of its mask, in its worst round, that equals one that was
worked out without a server, by OpenCV, Pillow and ONNX Runtime; below 99 % a server is not
counted. At *150 % load* requests come half again as fast as the server can answer: one that
refuses (429, with `Retry-After`) keeps its promise to those it takes, one that queues makes
everybody wait. *Four shapes* are photos of equal area and different proportions. Memory *under
load* is what a server holds at 8 and at 32 clients; one figure is after all of these loads. *int8*
is the file that `ppool precision` makes of 16 other photos; it is compared with nobody.
""".splitlines()


def stored() -> list[tuple[str, dict[str, Any]]]:
    """Networks and their documents, one for each kind of processor."""
    return [
        (name, json.loads(path.read_text("utf-8")))
        for name in NETWORKS
        for path in sorted(RESULTS.glob(f"serving-{name}.*json"))
    ]


def write_page() -> Path:
    """Write the page from the newest results and say where it is."""
    PAGE.write_text(render(stored()), "utf-8")
    return PAGE


def render(documents: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The page as Markdown."""
    lines = ["# Beside other servers", "", *_INTRODUCTION, ""]
    for name, measured in groupby(documents, lambda entry: entry[0]):
        lines += [f"## {NETWORKS[name]}", ""]
        found = [document for _, document in measured]
        if len(found) > 1:
            eight, many = (min(_beside(one, n)[1] for one in found) for n in (8, 32))
            lines += [
                f"On the worst of {len(found)} processors: {eight:.2f} times the best other at 8 "
                f"clients, {many:.2f} times at 32.",
                "",
            ]
        for document in found:
            lines += _section(document)
    return "\n".join(lines)


def _peers(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        name: record
        for name, record in document["results"]["servers"].items()
        if name not in OWN and record["agreement"] >= LEAST_AGREEMENT
    }


def _beside(document: Mapping[str, Any], clients: int) -> tuple[str, float]:
    """The best other server, and how many times as many photos a second are answered here."""
    peers = _peers(document)
    best = max(peers, key=lambda name: _rate(peers[name], clients))
    ours = document["results"]["servers"]["ppool"]
    return best, _rate(ours, clients) / _rate(peers[best], clients)


def _section(document: Mapping[str, Any]) -> list[str]:
    results = document["results"]
    servers, limits = results["servers"], results["limits"]
    ours, peers = servers["ppool"], _peers(document)
    said = []
    for clients in (8, 32):
        best, ratio = _beside(document, clients)
        said.append(f"{ratio:.2f} times {_short(best)} at {clients} clients")
    alone = min(peers, key=lambda name: _alone(peers[name]))
    lightest = min(peers, key=lambda name: peers[name]["idle_megabytes"]["median"])
    ratio = _alone(ours) / _alone(peers[alone])
    pipe, run = (limits[key] for key in ("pipe", "run"))
    return [
        f"{document['processor']}; ONNX Runtime {document['versions']['onnxruntime']}; commit "
        f"{document['commit']}; `{document['command']}`.",
        "",
        f"Photos a second beside the best other: {', '.join(said)}. A lone client waits "
        f"{ratio:.2f} times as long as at {_short(alone)}. Memory at rest is "
        f"{ours['idle_megabytes']['median']:.0f} MB, {_short(lightest)}'s "
        f"{peers[lightest]['idle_megabytes']['median']:.0f}. Decoding, inference, argmax and "
        f"encoding on threads, with no HTTP, reach {pipe['images_per_second']['median']:.0f} "
        f"photos a second at {pipe['cpu_milliseconds']['median']:.1f} CPU ms, inference alone "
        f"{run['images_per_second']['median']:.0f}; at 8 clients ppool takes "
        f"{_cpu(ours) / pipe['cpu_milliseconds']['median']:.2f} of that CPU time.",
        "",
        *table(COLUMNS, [_row(NAMES[name], servers[name]) for name in NAMES if name in servers]),
        "",
    ]


def _row(name: str, record: Mapping[str, Any]) -> list[str]:
    one, eight, many = (record[f"clients_{clients}"] for clients in (1, 8, 32))
    high = record["open_loop"]["1.5"]
    measured = [part["megabytes"] for part in (eight, many) if "megabytes" in part]
    loaded = measured or [record["loaded_megabytes"]]
    others = ", ".join(f"{count} x {status}" for status, count in high["other_answers"].items())
    return [
        name,
        f"{one['p50_milliseconds']['median']:.1f}, {one['p99_milliseconds']['median']:.1f}",
        _spread(eight["requests_per_second"]),
        f"{eight['cpu_milliseconds']['median']:.1f}",
        _spread(many["requests_per_second"]),
        f"{record['mixed_sizes']['requests_per_second']:.0f}",
        f"{high['p99_milliseconds']:.0f}, {others or 'none'}",
        f"{record['start_seconds']['median']:.1f}",
        ", ".join(f"{part['median']:.0f}" for part in (record["idle_megabytes"], *loaded)),
        f"{100 * record['agreement']:.1f}",
    ]


def _short(server: str) -> str:
    return NAMES[server].partition(",")[0]


def _spread(values: Mapping[str, float]) -> str:
    return f"{values['median']:.3g} ({values['min']:.3g} to {values['max']:.3g})"


def _rate(record: Mapping[str, Any], clients: int) -> float:
    found: float = record[f"clients_{clients}"]["requests_per_second"]["median"]
    return found


def _cpu(record: Mapping[str, Any]) -> float:
    found: float = record["clients_8"]["cpu_milliseconds"]["median"]
    return found


def _alone(record: Mapping[str, Any]) -> float:
    found: float = record["clients_1"]["p50_milliseconds"]["median"]
    return found
