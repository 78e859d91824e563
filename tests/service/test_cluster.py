"""``ppool segment --engine ray`` on a local cluster: ``make ray``."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import moto.server
import psutil
import pytest

from ppool.service.codecs.header import ImageLimits
from ppool.service.folder import Job, Run, Summary, find_photos
from ppool.service.models import shipped_model
from ppool.service.workers.inference import load_segmenter
from tests.service.harness import encoded, photo

# Ray takes 20 s to start, and 400 MB to install.
if not os.environ.get("PPOOL_RAY"):
    pytest.skip("PPOOL_RAY is not set", allow_module_level=True)

import pyarrow
import pyarrow.parquet
import ray

from ppool.service.folder.cluster import Order, _Actor, segment
from ppool.service.folder.shards import find_shards

pytestmark = pytest.mark.filterwarnings("default")
LIMITS = ImageLimits(64_000_000, 20_000, 1000)


class Heard:
    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    def more(self, count: int) -> None: ...

    def done(self, name: str, problem: str) -> None:
        if problem:
            self.problems[name] = problem


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    for number in range(80):
        sides = (300, 200) if number % 3 else (180, 260)
        path = folder / ("sub" if number % 2 else "") / f"{number}.png"
        path.write_bytes(encoded(photo(*sides, seed=number)))
    (folder / "broken.png").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The masks of the plain command."""
    folder = tmp_path_factory.mktemp("plain")
    segmenter = load_segmenter(shipped_model())
    labels = [label.name for label in segmenter.model.classes]
    summary = Summary(folder, labels, segmenter.model.sha256, Job().options)
    Run(Job(), find_photos([photos], folder), summary, segmenter, LIMITS).work(Heard())
    return masks(folder)


def masks(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def order(output: str) -> Order:
    return Order(shipped_model().read_bytes(), Job(workers=2), LIMITS, 1, output)


def actors() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "".join(process.cmdline()).startswith("ray::MapWorker")
    ]


def rows(folder: Path) -> list[dict[str, Any]]:
    tables = [pyarrow.parquet.read_table(path) for path in (folder / "summary").glob("*.parquet")]
    return pyarrow.concat_tables(tables, promote_options="permissive").to_pylist()


def test_a_killed_actor_loses_nothing_and_a_run_goes_on_where_it_was(
    photos: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.02):
            if list(tmp_path.glob("summary/*.parquet")) and (found := actors()):
                killed.append(found[0].pid)
                found[0].kill()
                return

    killer = threading.Thread(target=kill)
    killer.start()
    heard = Heard()
    try:
        counts = segment(order(str(tmp_path)), [str(photos)], heard)
    finally:
        ended.set()
        killer.join()
    assert killed
    assert masks(tmp_path) == plain
    assert (counts.written, counts.failed, counts.kept) == (80, 1, 0)
    assert set(heard.problems) == {"broken.png"}
    found = rows(tmp_path)
    assert len(found) == 81
    assert sum(bool(row["problem"]) for row in found) == 1
    assert not list(tmp_path.glob(".ppool-*"))

    (photos / "broken.png").write_bytes(encoded(photo()))
    again = segment(order(str(tmp_path)), [str(photos)], Heard())
    assert again.failed == 0
    assert again.kept  # the shards without the one that failed
    assert again.written + again.kept == 81
    assert len(rows(tmp_path)) == 81
    (photos / "broken.png").write_bytes(b"no photo")


def test_a_shard_of_a_store_goes_to_a_store(
    photos: Path, plain: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    server = moto.server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="photos")
    for name in ("0.png", "sub/1.png", "broken.png"):
        body = (photos / name).read_bytes()
        client.put_object(Bucket="photos", Key=f"in/{name}", Body=body)
    client.put_object(Bucket="photos", Key="in/notes.txt", Body=b"")
    try:
        [shard], skipped = find_shards(["s3://photos/in/"], "s3://photos/out")
        assert set(skipped) == {"notes.txt"}
        actor = _Actor(order("s3://photos/out"))
        problems = {name for name, problem in actor.do(shard) if problem}
        assert problems == {"broken.png"}
        body = (photos / "0.png").read_bytes()
        client.put_object(Bucket="photos", Key="in/broken.png", Body=body)
        assert not any(problem for _, problem in actor.do(shard))
        listed = client.list_objects_v2(Bucket="photos", Prefix="out/")["Contents"]
        # PyArrow marks a folder that it deletes from.
        found = {entry["Key"] for entry in listed if not entry["Key"].endswith("/")}
        for name in ("0.png.png", "sub/1.png.png"):
            stored = client.get_object(Bucket="photos", Key=f"out/{name}")["Body"].read()
            assert stored == plain[name]
        assert len(found) == 4  # the rows of the failure are gone
    finally:
        server.stop()


def test_photos_in_parquet_get_the_same_masks(
    photos: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    names = [name.removesuffix(".png") for name in sorted(plain)[:6]]
    table = {"name": names, "bytes": [(photos / name).read_bytes() for name in names]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "in.parquet", row_group_size=4)
    counts = segment(order(str(tmp_path / "out")), [str(tmp_path / "in.parquet")], Heard())
    assert counts.written == 6
    assert masks(tmp_path / "out") == {f"{name}.png": plain[f"{name}.png"] for name in names}
