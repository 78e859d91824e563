"""``python -m benchmarks.capacity``: the cost of an image, replicas for a rate, a simulated day."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.capacity import cluster
from benchmarks.capacity import simulate as day
from benchmarks.capacity.archive import Limits, needed
from benchmarks.capacity.autoscaler import Rules
from benchmarks.capacity.measure import measure
from benchmarks.capacity.plot import draw
from benchmarks.capacity.queueing import Pod, Units, demand, plan
from benchmarks.measure import RESULTS, write
from benchmarks.running import ROOT

MANIFEST = ROOT / "k8s" / "overlays" / "cpu" / "autoscaler.yaml"
POD_CORES = 2  # requested in k8s/base
QUEUE_IMAGES = 256  # PPOOL_QUEUE_IMAGES
PICTURE = ROOT / "docs" / "images" / "autoscaling.png"

cli = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__)
console = Console()


def measured(what: str = "capacity") -> dict[str, Any]:
    """The stored cost of an image: of the service, or on a ``cluster``.

    Raises:
        ValueError: if it was never measured.
    """
    path = RESULTS / f"{what}.json"
    if not path.is_file():
        command = "measure" if what == "capacity" else what
        raise ValueError(f"no measurement; run: python -m benchmarks.capacity {command}")
    results: dict[str, Any] = json.loads(path.read_text())["results"]
    return results


@cli.command("measure")
def measure_command(
    workers: Annotated[int, typer.Option(help="Workers of the service.")] = 2,
    rounds: Annotated[int, typer.Option(help="Rounds of 20 single images and 5 s of load.")] = 7,
) -> None:
    """Measure the service on this machine."""
    console.print(f"wrote {measure(workers, rounds)}")


@cli.command("cluster")
def cluster_command(
    photos: Annotated[int, typer.Option(help="Of the longer runs.", min=128)] = 384,
    rounds: Annotated[int, typer.Option(help="Of both engines in turn.")] = 5,
) -> None:
    """Measure `ppool segment`, alone and on a local Ray, and what a store is asked."""
    console.print(f"wrote {cluster.measure(photos, rounds)}")


@cli.command()
def archive(
    photos: Annotated[float, typer.Option(help="All of them.")] = 1e9,
    cores: Annotated[float, typer.Option(help="An actor each.")] = 1000,
    reads: Annotated[float, typer.Option(help="A second below a prefix. Assumed.")] = 5500,
    writes: Annotated[float, typer.Option(help="A second below a prefix. Assumed.")] = 3500,
    driver_gigabytes: Annotated[float, typer.Option(help="Of the driver, for names.")] = 8,
) -> None:
    """What so many photos take on a cluster of so many cores."""
    limits = Limits(reads, writes, driver_gigabytes * 1e9)
    table = Table("", f"{photos:,.0f} photos, {cores:,.0f} cores", box=SIMPLE)
    for row in needed(measured("cluster"), photos, cores, limits).items():
        table.add_row(*row)
    console.print(table)


@cli.command("plan")
def plan_command(
    rate: Annotated[float, typer.Option(help="Images a second, at the peak.")],
    p99_ms: Annotated[float, typer.Option(help="99 of 100 answers within this many ms.")],
    pod_workers: Annotated[int, typer.Option(help="Workers of a pod, one core each.")] = 2,
    pod_images_per_second: Annotated[
        float | None, typer.Option(help="Of a pod on your hardware; none: as measured here.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Of one pod for an hour.")] = None,
) -> None:
    """Replicas and cost for a rate and a p99, with one replica to spare."""
    pod = Pod(pod_images_per_second or pod_workers / measured()["cpu_seconds"], pod_workers)
    try:
        found = plan(pod, rate, p99_ms / 1e3)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console.print(
        f"{found.replicas} replicas (one of them to spare), each {found.busy:.0%} busy at most, "
        f"p99 {found.p99_seconds * 1e3:.0f} ms"
    )
    if price is not None:
        hourly = found.replicas * price
        each = hourly / rate / 3600 * 1e6
        console.print(f"{hourly:.2f} an hour, {each:.2f} for a million images at this rate")


@cli.command()
def ceilings(
    gpu_images: Annotated[float, typer.Option(help="Images/s of your GPU. Assumed.")] = 500,
    ingress_requests: Annotated[float, typer.Option(help="Requests/s a core. Assumed.")] = 2000,
    node_cores: Annotated[int, typer.Option(help="Cores of a node. Assumed.")] = 16,
    node_gigabits: Annotated[float, typer.Option(help="Network of a node. Assumed.")] = 10,
) -> None:
    """What 10, 1,000 and 100,000 images a second take up."""
    cost = measured()
    units = Units(
        cost["cpu_seconds"],
        cost["edge_seconds"],
        cost["photo_bytes"] + cost["mask_bytes"],
        node_cores,
        node_gigabits,
        ingress_requests,
        gpu_images,
    )
    rates = (10.0, 1_000.0, 100_000.0)
    table = Table("resource", *(f"{rate:,.0f} images/s" for rate in rates), box=SIMPLE)
    demands = [demand(units, rate) for rate in rates]
    for name in demands[0]:
        table.add_row(name, *(f"{each[name]:,.2f}" for each in demands))
    console.print(table)


@cli.command()
def simulate(
    mean: Annotated[float, typer.Option(help="Images a second over the day.")] = 120,
    swing: Annotated[float, typer.Option(help="Share of it by which night and day differ.")] = 0.6,
    burst: Annotated[float, typer.Option(help="Factor of the burst at 14:00.")] = 3,
    start_seconds: Annotated[int, typer.Option(help="From wish to ready pod. Assumed.")] = 30,
) -> None:
    """A day with a burst under the cpu overlay's autoscaler, without either metric, and fixed."""
    cost = measured()
    rules = Rules.read(MANIFEST)
    site = day.Site(POD_CORES / cost["cpu_seconds"], QUEUE_IMAGES, start_seconds)
    traffic = day.daily(mean, swing, burst)
    only = {
        name: dataclasses.replace(rules, targets={name: to}) for name, to in rules.targets.items()
    }
    contestants: dict[str, Rules | int] = {
        "CPU use and wait (as shipped)": rules,
        "CPU use alone": only["cpu"],
        "wait alone": only["ppool_queue_seconds"],
        "fixed at the most it took": 0,
    }
    days: dict[str, day.Day] = {}
    for name, how in contestants.items():
        days[name] = day.run(
            traffic, site, how or max(days["CPU use and wait (as shipped)"].replicas)
        )
    rows = {name: _summary(one) for name, one in days.items()}
    table = Table("replicas follow", *next(iter(rows.values())), box=SIMPLE)
    for name, row in rows.items():
        table.add_row(name, *(f"{value:,g}" for value in row.values()))
    console.print(table)
    command = (
        f"python -m benchmarks.capacity simulate --mean {mean:g} --swing {swing:g} "
        f"--burst {burst:g} --start-seconds {start_seconds}"
    )
    console.print(f"wrote {write('autoscaling', command, rows)}")
    draw(days, PICTURE)
    console.print(f"wrote {PICTURE}")


def _summary(one: day.Day) -> dict[str, float]:
    steps = zip(one.replicas, one.replicas[1:], strict=False)
    return {
        "refused, %": round(100 * one.refused_share, 3),
        "p99 wait, s": round(one.wait_percentile(0.99), 2),
        "p99.9 wait, s": round(one.wait_percentile(0.999), 2),
        "replica hours": round(one.replica_hours),
        "most replicas": max(one.replicas),
        "changes": sum(before != after for before, after in steps),
    }


if __name__ == "__main__":
    cli()
