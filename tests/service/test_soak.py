"""Thousands of shapes and a hundred reloads leave no trace; ``make stress`` runs all of them."""

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product, repeat
from pathlib import Path
from statistics import linear_regression, median

from benchmarks.clients import Request, closed_loop
from benchmarks.running import cpu_seconds
from ppool.metadata import InputPolicy
from tests.service.harness import METADATA, encoded, photo, tiny_model
from tests.service.traffic import Server, served, until

SHAPES = int(os.environ.get("STRESS_SHAPES", "60"))
RELOADS = int(os.environ.get("STRESS_RELOADS", "4"))
# Between two samples: ten of them at full length.
SHAPES_A_SAMPLE, RELOADS_A_SAMPLE = max(SHAPES // 10, 20), max(RELOADS // 10, 2)
# To measure what one costs.
REQUESTS = 40
MEBIBYTE = 2**20

# Rungs that sides stand on: 24 of them, so 576 shapes, with alpha and without, of two models.
SIDES = [8, 10, 12, 14, *(rung << power for power in range(5) for rung in (16, 20, 24, 28))]
METADATAS = [
    replace(METADATA, name=name, input=InputPolicy(max_side=1024, multiple=1)) for name in "ab"
]
BODY = encoded(photo(100, 80), "JPEG")


def model(index: int, seed: int = 0) -> bytes:
    about = METADATAS[index]
    return tiny_model(seed, about.name, metadata=about)


def put(content: bytes, path: Path) -> None:
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def ask(server: Server, bodies: Iterator[bytes], query: str = "") -> None:
    requests = (
        Request.post(f"{server.address}/segment{query}", body, {"Accept": "application/json"})
        for body in bodies
    )
    assert set(asyncio.run(closed_loop(requests, 4)).statuses) == {200}


class Samples:
    """CPU time of a request and memory of all processes, again and again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.milliseconds: list[float] = []
        self.mebibytes: list[float] = []

    def take(self) -> None:
        before = cpu_seconds(self._server.process.pid)
        ask(self._server, repeat(BODY, REQUESTS))
        spent = cpu_seconds(self._server.process.pid) - before
        self.milliseconds.append(spent / REQUESTS * 1e3)
        self.mebibytes.append(self._server.memory_bytes() / MEBIBYTE)

    def report(self, what: str) -> None:
        for name, values in (("ms", self.milliseconds), ("MiB", self.mebibytes)):
            slope = linear_regression(range(len(values)), values).slope
            print(
                f"{what}: {values[0]:.2f} to {values[-1]:.2f} {name}, slope {slope:+.3f} a sample, "
                f"spread {min(values):.2f} to {max(values):.2f}"
            )

    def assert_flat(self) -> None:
        third = max(len(self.milliseconds) // 3, 1)
        for values, most in ((self.milliseconds, 2.0), (self.mebibytes, 1.1)):
            first, last = median(values[:third]), median(values[-third:])
            assert last < most * first, values


def test_shapes_leave_no_trace(tmp_path: Path) -> None:
    for index, about in enumerate(METADATAS):
        put(model(index), tmp_path / f"{about.name}.onnx")
    combinations = product((0, 1), ("none", "maps"), SIDES, SIDES)
    with served(str(tmp_path), "--workers", "1", PPOOL_THREADS="1") as server:
        # What the largest takes is taken once.
        for query in ("?model=a&alpha=maps", "?model=b&alpha=maps"):
            ask(server, repeat(encoded(photo(SIDES[-1], SIDES[-1])), 16), query)
        samples = Samples(server)
        samples.take()
        wanted = islice(combinations, 0, None, max(4 * len(SIDES) ** 2 // SHAPES, 1))
        while batch := list(islice(wanted, SHAPES_A_SAMPLE)):
            for index, alpha, height, width in batch:
                query = f"?model={METADATAS[index].name}&alpha={alpha}"
                ask(server, iter([encoded(photo(width, height))]), query)
            samples.take()
        samples.report(f"{SHAPES} shapes")
        samples.assert_flat()


def test_reloads_leave_no_trace(tmp_path: Path) -> None:
    def loaded() -> float:
        return server.metric('ppool_model_reloads_total{model="a",outcome="loaded"}')

    put(model(0), tmp_path / "a.onnx")
    with served(str(tmp_path), "--workers", "2", PPOOL_THREADS="1") as server:
        samples = Samples(server)
        for count in range(1, RELOADS + 1):
            if count % RELOADS_A_SAMPLE == 1 % RELOADS_A_SAMPLE:
                samples.take()
            put(model(0, seed=count), tmp_path / "a.onnx")
            server.process.send_signal(signal.SIGHUP)
            until(lambda reached=count: loaded() == reached)
        samples.take()
        files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        samples.report(f"{RELOADS} reloads")
        print(f"{files} open files")
        samples.assert_flat()
        assert files < 40
