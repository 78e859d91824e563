"""What a photo costs `ppool segment`, alone and on Ray, and what a store is asked for it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.measure import write
from benchmarks.running import ROOT
from ppool.service.codecs.header import NO_LIMITS
from ppool.service.folder import Job, Run, Summary, find_photos
from ppool.service.models import shipped_model
from ppool.service.workers.inference import Segmenter, load_segmenter

__all__ = ["measure"]

PHOTO = ROOT / "ppool" / "service" / "playground" / "desk.jpg"
FEW = 64  # several shards, so that both engines are busy throughout


class _Silent:
    def more(self, count: int) -> None: ...

    def done(self, name: str, problem: str) -> None:
        if problem:
            raise RuntimeError(f"{name}: {problem}")


def measure(photos: int, rounds: int) -> Path:
    """Measure on this machine, in turn, and store the result."""
    import ray

    # As the plain command, or a busy machine would be unfair.
    os.environ |= {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    segmenter = load_segmenter(shipped_model())
    seen: dict[str, list[_Cost]] = {"plain": [], "ray": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        few, many = _photos(root / "few", FEW), _photos(root / "many", photos)
        asked = _requests()
        for number in range(rounds):
            for engine, run in (("plain", _plain), ("ray", _on_ray)):
                short, long = (
                    _cost_of(
                        partial(run, given, root / f"{engine}-{given.name}-{number}", segmenter)
                    )
                    for given in (few, many)
                )
                seen[engine].append(long.of_one(short, photos - FEW))
            _check_equal(root / f"plain-many-{number}", root / f"ray-many-{number}")
        mask = next((root / "plain-many-0").glob("*.png")).stat().st_size
        driver = _driver(shards=100)
        ray.shutdown()
        found = {
            "cpu_seconds": _told(seen, "cpu"),
            "seconds": _told(seen, "clock"),
            "driver_cpu_seconds_a_shard": round(driver, 5),
            **_names(200_000),
            **asked,
            "photo_bytes": PHOTO.stat().st_size,
            "mask_bytes": mask,
        }
    command = f"python -m benchmarks.capacity cluster --photos {photos} --rounds {rounds}"
    return write("cluster", command, found)


def _told(seen: dict[str, list[_Cost]], what: str) -> dict[str, Any]:
    rounds = {
        name: [round(getattr(cost, what), 4) for cost in costs] for name, costs in seen.items()
    }
    ratios = sorted(ray / plain for plain, ray in zip(*rounds.values(), strict=True))
    return {
        **{name: median(values) for name, values in rounds.items()},
        "ratio": [round(value, 3) for value in (ratios[0], median(ratios), ratios[-1])],
        "rounds": rounds,
    }


def _photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        shutil.copy(PHOTO, folder / f"{number}.jpg")
    return folder


def _plain(photos: Path, masks: Path, segmenter: Segmenter) -> None:
    labels = [label.name for label in segmenter.model.classes]
    summary = Summary(masks, labels, segmenter.model.sha256, Job().options)
    run = Run(Job(workers=2), find_photos([photos], masks), summary, segmenter, NO_LIMITS)
    run.work(_Silent())


def _on_ray(photos: Path, masks: Path, segmenter: Segmenter) -> None:
    from ppool.service.folder.cluster import ClusterRun, Order

    order = Order(shipped_model().read_bytes(), Job(workers=2), NO_LIMITS, 1, str(masks))
    ClusterRun(order, [str(photos)], segmenter.model).work(_Silent())


def _check_equal(one: Path, other: Path) -> None:
    for path in one.iterdir():
        if path.read_bytes() != (other / path.name).read_bytes():
            raise RuntimeError(f"{path.name} is another one on Ray")


@dataclass(frozen=True)
class _Cost:
    """Seconds of a run: of all processors together, and by the clock."""

    cpu: float
    clock: float

    def of_one(self, fewer: _Cost, photos: int) -> _Cost:
        """Of each photo that a shorter run had not."""
        cost = _Cost((self.cpu - fewer.cpu) / photos, (self.clock - fewer.clock) / photos)
        if min(cost.cpu, cost.clock) <= 0:
            raise RuntimeError(
                "more photos took no longer: measure on an idle machine, and more of them"
            )
        return cost


def _cost_of(run: Callable[[], None]) -> _Cost:
    with _Processors() as used:
        start = time.perf_counter()
        run()
        clock = time.perf_counter() - start
    return _Cost(used.seconds, clock)


class _Processors:
    """What this process and all below it take of the processors, looked at four times a second.

    Ray reaps its workers without adding them up, so those that ended are known from the last look.
    """

    def __enter__(self) -> _Processors:
        self._seen: dict[psutil.Process, float] = {}
        self._look()
        self._before = sum(self._seen.values())
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._keep_looking)
        self._watch.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._watch.join()
        self._look()
        self.seconds = sum(self._seen.values()) - self._before

    def _keep_looking(self) -> None:
        while not self._ended.wait(0.25):
            self._look()

    def _look(self) -> None:
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self._seen[process] = times.user + times.system


class _Nothing:
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"report": batch["shard"]}


def _driver(shards: int) -> float:
    """CPU seconds of the driver for a shard that is no work."""
    import ray.data

    def run(count: int) -> float:
        start = time.process_time()
        items = [{"shard": "x" * 1500} for _ in range(count)]
        data = ray.data.from_items(items, override_num_blocks=count).map_batches(
            _Nothing, batch_size=1, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1
        )
        for _ in data.iter_rows():
            pass
        return time.process_time() - start

    few = run(4)
    return (run(shards) - few) / (shards - 4)


def _names(count: int) -> dict[str, float]:
    """What the driver needs for a photo before any is done."""
    import tracemalloc

    from ppool.service.folder.shards import _cut

    about = [(f"2026/11/28/camera-{n % 97:02}/{n:012}.jpg", 50_000 + n, n) for n in range(count)]
    start = time.process_time()
    shards = list(_cut("s3://photos", about))
    seconds = time.process_time() - start
    del shards
    tracemalloc.start()
    held = list(_cut("s3://photos", [(f"{n:060}", 50_000 + n, n) for n in range(count // 10)]))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {
        "photos_a_shard": round(count // 10 / len(held), 1),
        "driver_cpu_seconds_a_photo": round(seconds / count, 8),
        "driver_bytes_a_photo": round(size / (count // 10)),
    }


@contextmanager
def _store(asked: Counter[str]) -> Iterator[Any]:
    """A client of a store with the bucket ``bench``; the methods it is asked with are counted."""
    import boto3  # type: ignore[import-untyped]
    import moto.server

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            asked[record.getMessage().partition('"')[2].split(" ")[0]] += 1

    log = logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(Counting())
    server = moto.server.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
    client.create_bucket(Bucket="bench")
    os.environ["AWS_ENDPOINT_URL"] = address
    try:
        yield client
    finally:
        server.stop()


def _requests() -> dict[str, float]:
    """Requests to a store for a photo and for a shard, by a fit to shards of two sizes."""
    from ppool.service.folder.actor import Actor, Order
    from ppool.service.folder.shards import Shard

    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"}
    os.environ |= {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    asked: Counter[str] = Counter()
    counts: list[Counter[str]] = []
    sizes = (2, 12)
    with _store(asked) as client:
        for number in range(max(sizes)):
            client.put_object(Bucket="bench", Key=f"in/{number}.jpg", Body=PHOTO.read_bytes())
        order = Order(shipped_model().read_bytes(), Job(), NO_LIMITS, 1, "s3://bench/out")
        actor = Actor(order)
        for size in sizes:
            asked.clear()
            names = tuple(f"{number}.jpg" for number in range(size))
            actor.do(Shard(str(size), "s3://bench/in", names, size))
            counts.append(Counter(asked))
    found = {}
    for name, methods in (("gets", ("GET", "HEAD")), ("puts", ("PUT", "POST", "DELETE"))):
        few, many = (sum(count[method] for method in methods) for count in counts)
        a_photo = (many - few) / (sizes[1] - sizes[0])
        found[f"{name}_a_photo"] = round(a_photo, 2)
        found[f"{name}_a_shard"] = round(few - a_photo * sizes[0], 2)
    return found
