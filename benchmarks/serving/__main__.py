"""Measure ppool beside its peers: ``python -m benchmarks.serving``; the first run installs them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.clients import Answers, Request, closed_loop, open_loop
from benchmarks.measure import write
from benchmarks.running import ROOT
from benchmarks.serving import networks
from benchmarks.serving.page import write_page
from benchmarks.serving.servers import PEERS, PPOOL, Network, Running, Server, serving
from ppool.export import lower_precision
from research.fineshapes import FineShapes

CLIENTS = (1, 8, 32)
LOADS = (0.8, 1.5)
# In open loop a client waits this many times what one photo takes alone; only ppool can be told.
DEADLINE_OF_LATENCY = 30
# Four shapes of nearly equal area, so that only batching by shape can make them slower than one.
MIXED_SIZES = ((640, 480), (480, 640), (554, 554), (720, 427))
# Photos by which int8 is given its ranges, none of which is measured with.
CALIBRATION = 16
NETWORKS = {
    "tiny-256": (networks.write_tiny, 256),
    "tiny-512": (networks.write_tiny, 512),
    "vgg16-256": (networks.write_vgg16, 256),
}

COLUMNS = (
    "server", "1: p50, p99 ms", "8: req/s", "p99 ms", "CPU ms", "32: req/s", "p99 ms",
    "mixed req/s", "80 %: p99 ms", "150 %: p99 ms", "others", "start s", "MB",
)  # fmt: skip

console = Console(width=150)
app = typer.Typer(pretty_exceptions_enable=False)


@cache
def photo(width: int, height: int, seed: int = 1_000_000) -> bytes:
    """A scene like those the small network was trained on, as a JPEG of the given size."""
    file = io.BytesIO()
    scene = FineShapes(1, seed=seed, height=height, width=width)[0]
    Image.fromarray(scene.image).save(file, "JPEG", quality=90)
    return file.getvalue()


def prepare(name: str, folder: Path) -> Network:
    """Write the network, and adopt it as a user would."""
    build, side = NETWORKS[name]
    plain, adopted, int8 = (folder / f"{name}{form}.onnx" for form in ("", "-adopted", "-int8"))
    build(plain, side)
    command = [
        sys.executable, "-m", "ppool.export", "adopt", str(plain), "--output", str(adopted),
        "--classes", ",".join(networks.CLASSES), "--name", name,
        "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    photos = folder / "calibration"
    photos.mkdir(exist_ok=True)
    for seed in range(CALIBRATION):
        (photos / f"{seed}.jpg").write_bytes(photo(*MIXED_SIZES[0], seed=seed))
    lower_precision(adopted, int8, "int8", calibration=photos)
    return Network(name, side, plain, adopted, int8)


def set_up(folder: Path) -> None:
    """Make the peers' environments, once."""
    for name, file in (("peers", "requirements.txt"), ("triton", "requirements-triton.txt")):
        python = folder / name / "bin" / "python"
        if not python.exists():
            console.print(f"installing {file}; a few minutes, once")
            venv.create(folder / name, with_pip=True)
            listed = str(Path(__file__).with_name(file))
            install = [str(python), "-m", "pip", "install", "--quiet", "-r", listed]
            subprocess.run(install, check=True)


def limits(network: Network, folder: Path, seconds: float) -> dict[str, Any]:
    """The ceilings, measured in the peers' environment, and the photo's mask in ``mask.png``."""
    picture = folder / "photo.jpg"
    picture.write_bytes(photo(*MIXED_SIZES[0]))
    command = [str(folder / "peers" / "bin" / "python"), "-m", "benchmarks.serving.limits"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PEER_MODEL": str(network.plain),
        "PEER_SIDE": str(network.side),
    }
    result = subprocess.run(
        [*command, str(picture), str(seconds), str(folder / "mask.png")],
        cwd=ROOT, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def watch(
    running: Running, requests: Sequence[Request], clients: int, seconds: float
) -> dict[str, Any]:
    """One closed-loop measurement; its megabytes are those the server holds at its end."""
    cpu = running.cpu_seconds()
    seen = asyncio.run(closed_loop(cycle(requests), clients, seconds))
    cpu = running.cpu_seconds() - cpu
    return summary(seen) | {
        "cpu_milliseconds": round(cpu / max(len(seen.good), 1) * 1e3, 2),
        "megabytes": round(running.memory_megabytes()),
    }


def summary(seen: Answers) -> dict[str, Any]:
    """Throughput, latency of the good answers in milliseconds, and the other answers by status."""
    good = [1e3 * seconds for seconds in seen.good]
    cuts = quantiles(good, n=100, method="inclusive") if len(good) > 1 else [float("nan")] * 99
    return {
        "requests_per_second": round(len(good) / seen.seconds, 1),
        "p50_milliseconds": round(cuts[49], 1),
        "p99_milliseconds": round(cuts[98], 1),
        "other_answers": {
            str(status): seen.statuses.count(status) for status in sorted({*seen.statuses} - {200})
        },
        "bad_retry_after": sum(not (value or "").isdigit() for value in seen.retry_after),
    }


def mask_of(body: bytes) -> np.ndarray:
    """The PNG in an answer, which Triton precedes by a header."""
    return np.asarray(Image.open(io.BytesIO(body[body.index(b"\x89PNG") :])))


def measure(
    server: Server, network: Network, folder: Path, seconds: float, *, last: bool
) -> dict[str, Any]:
    """Start a server and load it; in the ``last`` round also in open loop and with mixed sizes."""
    with serving(server, network, folder) as running:
        requests = [server.ask(running.url, photo(*size)) for size in MIXED_SIZES]
        idle = running.memory_megabytes()
        warm = asyncio.run(closed_loop(cycle(requests[:1]), 8, 1.0))
        found: dict[str, Any] = {
            "start_seconds": round(running.start_seconds, 2),
            "idle_megabytes": round(idle),
            "clients": {n: watch(running, requests[:1], n, seconds) for n in CLIENTS},
            "mask": mask_of(warm.last_body),
        }
        if last:
            capacity = found["clients"][8]["requests_per_second"]
            found["mixed"] = watch(running, requests, 8, seconds)
            deadline = DEADLINE_OF_LATENCY * found["clients"][1]["p50_milliseconds"]
            due = [server.ask(running.url, photo(*MIXED_SIZES[0]), round(deadline))]
            found["open"] = {
                load: summary(asyncio.run(open_loop(cycle(due), load * capacity, 3 * seconds)))
                for load in LOADS
            } | {"deadline_milliseconds": round(deadline)}
        found["loaded_megabytes"] = round(running.memory_megabytes())
    return found


def middle(values: Iterable[float]) -> dict[str, float]:
    """Median and range over the rounds."""
    found = sorted(values)
    return {"median": median(found), "min": found[0], "max": found[-1]}


def merge(rounds: Sequence[Mapping[str, Any]], reference: np.ndarray) -> dict[str, Any]:
    """The rounds of one server as one record."""
    keys = (
        "requests_per_second",
        "p50_milliseconds",
        "p99_milliseconds",
        "cpu_milliseconds",
        "megabytes",
    )
    merged: dict[str, Any] = {
        key: middle(one[key] for one in rounds)
        for key in ("start_seconds", "idle_megabytes", "loaded_megabytes")
    }
    agreements = [float((one["mask"] == reference).mean()) for one in rounds]
    merged["agreement"] = round(min(agreements), 4)
    for clients in CLIENTS:
        of = [one["clients"][clients] for one in rounds]
        merged[f"clients_{clients}"] = {key: middle(one[key] for one in of) for key in keys} | {
            "other_answers": [one["other_answers"] for one in of]
        }
    last = rounds[-1]
    return merged | {"mixed_sizes": last["mixed"], "open_loop": last["open"]}


def run(
    name: str, servers: list[Server], folder: Path, rounds: int, seconds: float
) -> dict[str, Any]:
    """All servers on one network, in turn, round by round."""
    network = prepare(name, folder)
    seen: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
    ceilings = []
    for number in range(rounds):
        last = number == rounds - 1
        ceilings.append(limits(network, folder, seconds))
        for server in servers[number:] + servers[:number]:
            console.print(f"{name}, round {number + 1}: {server.name}")
            seen[server.name].append(measure(server, network, folder, seconds, last=last))
    reference = mask_of((folder / "mask.png").read_bytes())
    return {
        "limits": {
            which: {
                key: middle(one[which][key] for one in ceilings)
                for key in ("images_per_second", "cpu_milliseconds")
            }
            for which in ("run", "pipe")
        },
        "servers": {key: merge(records, reference) for key, records in seen.items()},
    }


def table(name: str, result: Mapping[str, Any]) -> Table:
    """Medians, with the best peer and the ceiling to compare with."""
    limit = result["limits"]
    ceilings = (
        f"{key} {value['images_per_second']['median']:.0f}/s" for key, value in limit.items()
    )
    grid = Table(title=f"{name}: ceilings {', '.join(ceilings)}")
    for column in COLUMNS:
        grid.add_column(column, justify="right")
    for server, record in result["servers"].items():
        one, eight, many = (record[f"clients_{n}"] for n in CLIENTS)
        low, high = (record["open_loop"][load] for load in LOADS)
        cells = (
            f"{one['p50_milliseconds']['median']:.1f}, {one['p99_milliseconds']['median']:.1f}",
            f"{eight['requests_per_second']['median']:.1f}",
            f"{eight['p99_milliseconds']['median']:.0f}",
            f"{eight['cpu_milliseconds']['median']:.1f}",
            f"{many['requests_per_second']['median']:.1f}",
            f"{many['p99_milliseconds']['median']:.0f}",
            f"{record['mixed_sizes']['requests_per_second']:.1f}",
            f"{low['p99_milliseconds']:.0f}",
            f"{high['p99_milliseconds']:.0f}",
            str(high["other_answers"] or "-"),
            f"{record['start_seconds']['median']:.1f}",
            f"{record['loaded_megabytes']['median']:.0f}",
        )
        grid.add_row(server, *cells)
    return grid


@app.command()
def main(
    network: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(NETWORKS)}.")] = None,
    server: Annotated[list[str] | None, typer.Option(help="Only these; default all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times each server is started.")] = 3,
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 4.0,
    machine: Annotated[
        str, typer.Option(help="Another kind of processor, to be named in the result's file.")
    ] = "",
    folder: Annotated[Path, typer.Option(help="For environments, networks and logs.")] = (
        ROOT / "runs" / "serving"
    ),
) -> None:
    """Measure ppool beside its peers and write serving-NETWORK.json to benchmarks/results."""
    known = {one.name: one for one in (*PEERS, *PPOOL)}
    for asked, names in ((network or (), NETWORKS), (server or (), known)):
        if not set(asked) <= set(names):
            raise typer.BadParameter(f"expected some of {', '.join(names)}; got {asked!r}")
    folder.mkdir(parents=True, exist_ok=True)
    set_up(folder)
    servers = [one for name, one in known.items() if not server or name in server]
    only = "".join(f" --server {one.name}" for one in servers if server)
    for name in network or list(NETWORKS):
        result = run(name, servers, folder, rounds, seconds)
        console.print(table(name, result))
        command = f"python -m benchmarks.serving --network {name}{only} --rounds {rounds}"
        kept = ".".join(filter(None, (f"serving-{name}", machine)))
        path = write(kept, f"{command} --seconds {seconds:g}", result)
        console.print(f"wrote {path}")
    console.print(f"wrote {write_page()}")


if __name__ == "__main__":
    app()
