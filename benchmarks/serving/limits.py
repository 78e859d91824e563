"""The ceilings: the network alone, and all of a request's work on a thread pool without HTTP.

The mask it finds on the way is what every server's is compared with.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.serving import work


def measure(step: Callable[[], object], workers: int, seconds: float) -> dict[str, float]:
    """Images a second and processor milliseconds an image of ``step`` on ``workers`` threads."""

    def loop(until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            step()
            count += 1
        return count

    with ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            step()
        begin, cpu = time.perf_counter(), time.process_time()
        count = sum(pool.map(loop, [begin + seconds] * workers))
        elapsed, used = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "images_per_second": round(count / elapsed, 1),
        "cpu_milliseconds": round(used / count * 1e3, 2),
    }


def main() -> None:
    """``limits.py PHOTO SECONDS MASK``: JSON of both ceilings, and the photo's mask as PNG.

    The model and threads are given by ``PEER_*``.
    """
    photo, seconds = Path(sys.argv[1]).read_bytes(), float(sys.argv[2])
    model = work.session()
    Path(sys.argv[3]).write_bytes(work.segment(model, photo))
    x = np.ascontiguousarray(work.decode(photo)[0][None])
    limits = {
        "run": measure(lambda: model.run(None, {"image": x}), 2, seconds),
        "pipe": measure(lambda: work.segment(model, photo), 3, seconds),
    }
    print(json.dumps(limits))


if __name__ == "__main__":
    main()
