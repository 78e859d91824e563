"""``ppool segment --engine ray`` on a local cluster: ``make ray``."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import moto.server
import numpy as np
import psutil
import pytest
import tifffile

from ppool.service.codecs.header import ImageLimits
from ppool.service.folder import Job, Run, Summary, find_photos
from ppool.service.models import Model
from ppool.service.workers.inference import load_segmenter
from tests.service.harness import encoded, photo
from tests.service.traffic import PATIENCE_SECONDS

# Ray takes 20 s to start, and 400 MB to install.
if not os.environ.pop("PPOOL_RAY", ""):
    pytest.skip("PPOOL_RAY is not set", allow_module_level=True)

import pyarrow
import pyarrow.parquet
import ray

from ppool.service.folder.actor import Actor, Order
from ppool.service.folder.cluster import ClusterRun
from ppool.service.folder.rows import Rows
from ppool.service.folder.shards import Place, find_shards

pytestmark = pytest.mark.filterwarnings("default")
LIMITS = ImageLimits(64_000_000, 20_000, 1000)
JOB = Job(("mask", "coco"), workers=2, batch=2)
LABELS = ["dark", "middle", "bright"]


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
    tifffile.imwrite(folder / "scan.tif", np.stack([photo(90, 60)] * 2), photometric="rgb")
    (folder / "broken.png").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return load_segmenter(model_file).model


@pytest.fixture(scope="module")
def plain(photos: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the plain command."""
    folder = tmp_path_factory.mktemp("plain")
    segmenter = load_segmenter(model_file)
    labels = [label.name for label in segmenter.model.classes]
    summary = Summary(folder, labels, segmenter.model.sha256, JOB.options)
    Run(JOB, find_photos([photos], folder), summary, segmenter, LIMITS).work(Heard())
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, but for the rows of Parquet."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def run(model: Model, model_file: Path, photos: Path, tmp_path: Path) -> Callable[..., ClusterRun]:
    def make(given: object = photos, output: object = tmp_path, **options: Any) -> ClusterRun:
        force = options.pop("force", False)
        job = replace(JOB, **options)
        order = Order(model_file.read_bytes(), job, LIMITS, 1, str(output), force)
        return ClusterRun(order, [str(given)], model)

    return make


def actors() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "".join(process.cmdline()).startswith("ray::MapWorker")
    ]


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(folder).to_pylist()
    return found


def test_a_killed_actor_loses_nothing_and_a_run_goes_on_where_it_was(
    photos: Path, plain: Path, tmp_path: Path, run: Callable[..., ClusterRun]
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
    heard, first = Heard(), run()
    try:
        assert first.work(heard)
    finally:
        ended.set()
        killer.join()
    assert killed
    # All files, summary.csv and coco.json with them; no temporary one is left.
    assert files(tmp_path) == files(plain)
    assert (first.counts.written + first.counts.kept, first.counts.failed) == (82, 1)
    assert first.counts.skipped == 1
    assert set(heard.problems) == {"broken.png"}
    found = rows(tmp_path / "summary")
    assert len(found) == 83
    assert sum(bool(row["problem"]) for row in found) == 1

    (photos / "broken.png").write_bytes(encoded(photo()))
    again = run()
    assert again.work(Heard())
    assert again.counts.failed == 0
    assert again.counts.kept  # the shards without the one that failed
    assert again.counts.written + again.counts.kept == 83
    assert len(rows(tmp_path / "summary")) == 83
    (photos / "broken.png").write_bytes(b"no photo")
    assert run().work(Heard())
    assert files(tmp_path) == files(plain)  # what failed takes its old files along


def test_stopped_it_keeps_what_is_finished_and_others_may_go_on(
    photos: Path, plain: Path, tmp_path: Path, run: Callable[..., ClusterRun]
) -> None:
    stopped = run(workers=1)
    with pytest.raises(ValueError, match="another ppool segment"):
        run()

    class Stopping(Heard):
        def done(self, name: str, problem: str) -> None:
            stopped.stop()

    assert not stopped.work(Stopping())
    written = stopped.counts.written
    assert 0 < written < 82
    # Another shard may be done meanwhile, as this cluster goes on.
    assert written < (tmp_path / "summary.csv").read_bytes().count(b"\r\n") < 83
    assert not (tmp_path / "coco.json").exists()
    with pytest.raises(ValueError, match="made with other options"):
        run(outputs=("mask",))
    again = run()
    assert again.work(Heard())
    assert again.counts.kept
    assert files(tmp_path) == files(plain)
    forced = run(force=True, outputs=("mask",))
    assert forced.work(Heard())
    assert (forced.counts.written, forced.counts.kept) == (82, 0)


def test_the_command_ends_at_a_signal(photos: Path, model_file: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    content = encoded(photo(700, 700))
    for number in range(600):
        (many / f"{number}.png").write_bytes(content)
    words = ["segment", many, "-o", tmp_path / "out", "--engine", "ray", "--model", model_file]
    command = [sys.executable, "-P", "-m", "ppool", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        # Ray takes as long as it takes to start; the end is pytest's.
        while process.poll() is None and not list(tmp_path.glob("out/summary/*.parquet")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        line, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    written = int(line.split()[0])
    assert 0 < written < 600
    assert (tmp_path / "out" / "summary.csv").read_bytes().count(b"\r\n") == written + 1


def test_the_plain_command_goes_on_with_what_a_cluster_did(
    photos: Path, model_file: Path, tmp_path: Path, run: Callable[..., ClusterRun]
) -> None:
    assert run().work(Heard())
    segmenter = load_segmenter(model_file)
    labels = [label.name for label in segmenter.model.classes]
    summary = Summary(tmp_path, labels, segmenter.model.sha256, JOB.options)
    found = find_photos([photos], tmp_path)
    kept = Run(JOB, found, summary, segmenter, LIMITS)
    assert kept.work(Heard())
    assert (kept.counts.kept, kept.counts.written) == (82, 0)


def test_a_shard_of_a_store_goes_to_a_store(
    photos: Path, plain: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
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
    odd = "which? #1.png"
    for name, path in {"0.png": "0.png", "sub/1.png": "sub/1.png", odd: "broken.png"}.items():
        body = (photos / path).read_bytes()
        client.put_object(Bucket="photos", Key=f"in/{name}", Body=body)
    client.put_object(Bucket="photos", Key="in/notes.txt", Body=b"")
    client.put_object(Bucket="photos", Key=f"out/{odd}.png", Body=b"of last year")
    try:
        [shard], found = find_shards(["s3://photos/in/?region=us-east-1"], "s3://photos/out")
        assert set(found.skipped) == {"notes.txt"}
        order = Order(model_file.read_bytes(), JOB, LIMITS, 1, "s3://photos/out")
        actor = Actor(order)
        problems = {name for name, problem in actor.do(shard)["done"] if problem}
        assert problems == {odd}
        with pytest.raises(client.exceptions.NoSuchKey):
            client.get_object(Bucket="photos", Key=f"out/{odd}.png")
        body = (photos / "0.png").read_bytes()
        client.put_object(Bucket="photos", Key=f"in/{odd}", Body=body)
        assert not any(problem for _, problem in actor.do(shard)["done"])
        Rows(Place("s3://photos/out")).merge([order.stem(shard)], LABELS, whole=True)
        listed = client.list_objects_v2(Bucket="photos", Prefix="out/")["Contents"]
        # PyArrow marks a folder that it deletes from.
        keys = {entry["Key"] for entry in listed if not entry["Key"].endswith("/")}

        def stored(name: str) -> bytes:
            body: bytes = client.get_object(Bucket="photos", Key=f"out/{name}")["Body"].read()
            return body

        for name in ("0.png.png", "sub/1.png.png", "0.png.coco.json"):
            assert stored(name) == (plain / name).read_bytes()
        # A mask and a document each, one file of rows, the other being gone, and those of all.
        assert len(keys) == 3 * 2 + 1 + 2
        assert len(json.loads(stored("coco.json"))["images"]) == 3
        assert stored("summary.csv").count(b"\r\n") == 4
    finally:
        server.stop()


def test_photos_and_answers_may_be_in_parquet(
    photos: Path, plain: Path, tmp_path: Path, run: Callable[..., ClusterRun]
) -> None:
    names = [*sorted(path.name for path in photos.glob("*.png"))[:6], "../x.png"]
    table = {"name": names, "bytes": [(photos / name).read_bytes() for name in names[:-1]] + [b""]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "in.parquet", row_group_size=4)
    output = tmp_path / "out.parquet"
    heard = Heard()
    first = run(tmp_path / "in.parquet", output)
    assert first.work(heard)
    assert (first.counts.written, first.counts.failed) == (6, 1)
    assert heard.problems == {"../x.png": "its name leads elsewhere"}
    found = {row["file"]: row for row in rows(output)}
    assert set(found) == set(names)
    for name in names[:-1]:
        assert found[name]["mask"] == (plain / f"{name}.png").read_bytes()
        assert found[name]["coco"] == (plain / f"{name}.coco.json").read_bytes()
    assert {path.suffix for path in output.iterdir()} == {".parquet"}
    again = run(tmp_path / "in.parquet", output)
    assert again.work(Heard())
    assert (again.counts.written, again.counts.kept) == (2, 4)  # the one that failed, and its like


@pytest.mark.parametrize("column", ["name", "bytes"])
def test_parquet_without_photos_is_refused(column: str, tmp_path: Path) -> None:
    table = {"name": ["x.png"], "bytes": [b"x"]} | {column: [1]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "in.parquet")
    with pytest.raises(ValueError, match=f"has no column '{column}' of type"):
        find_shards([str(tmp_path / "in.parquet")], "out")
