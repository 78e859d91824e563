"""Whole networks in ONNX Runtime, with P-pooling and with max pooling: time and peak memory."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import contest
from ppool.export import export_model
from ppool.models import create_model
from ppool.runtime import make_session

__all__ = ["NETWORKS", "networks"]

NETWORKS = ("unet_small", "vgg16", "resnet50", "deeplab_largefov", "fcn8s_inceptionv2",
            "deeplabv3_xception")  # fmt: skip
CLASSES = tuple(f"class {index}" for index in range(21))
SIDE = 512


def networks(names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds, ratio and peak memory of an image of 512 x 512 in each network.

    Weights are random, so alpha stands where it starts; the arithmetic is the same at any alpha.
    """
    return [row for name in names for row in _network(name, rounds)]


def _network(name: str, rounds: int) -> Iterator[dict[str, Any]]:
    image = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        paths = {pooling: Path(folder) / f"{pooling}.onnx" for pooling in ("ppool", "max")}
        for pooling, path in paths.items():
            torch.manual_seed(0)
            model = create_model(name, pooling=pooling, num_classes=len(CLASSES)).eval()
            export_model(
                model, path, classes=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3, check=False
            )
        peaks = {pooling: _apart(path) for pooling, path in paths.items()}
        for threads in (1, 2):
            runs = {
                pooling: partial(
                    make_session(path, intra_op_threads=threads).run, ["mask"], {"image": image}
                )
                for pooling, path in paths.items()
            }
            yield {
                "network": name,
                "input": [1, SIDE, SIDE, 3],
                "threads": threads,
                **contest(runs, [("ppool", "max")], rounds=rounds, warmup=1),
                "peak_megabytes": peaks,
            }


def _apart(path: Path) -> int:
    """Peak resident memory, on Linux, of a fresh process that segments one image."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_peak_megabytes, str(path)).result()


def _peak_megabytes(path: str) -> int:
    session = make_session(path)
    session.run(["mask"], {"image": np.zeros((1, SIDE, SIDE, 3), np.uint8)})
    # Not ru_maxrss: a new process begins with its parent's there.
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(kilobytes) / 2**10)
