"""``python -m benchmarks.gpu``: build, check and measure the CUDA kernels; the whole in minutes.

Needs PyTorch and NumPy. With nvcc the kernels are built, else ``ppool/_cuda.so`` is taken. Without
a GPU, or with ``--dry-run``, the same kernels run on the host and only their results are checked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu import checks, speed
from benchmarks.gpu.problems import Gpu
from benchmarks.measure import RESULTS, write
from ppool._gpu import Kernels, cuda_kernels
from ppool.native.build import build_cuda, build_emulated, find_nvcc

# What the kernels are meant to reach.
GOALS = {
    "unit / max_pool2d": 1.15,
    "share of copy bandwidth": 0.8,
    "forward and backward / max_pool2d": 1.5,
    "VGG-16 / twin": 1.02,
}
# No section is begun after this.
SECONDS = 400
ROOT = Path(__file__).parents[2]


class Sections:
    """Runs sections one by one; one that fails is reported and does not stop the others."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self._start = time.monotonic()

    def run(self, name: str, section: Callable[[], Any]) -> Any:
        """The section's result, or None if it failed or there is no time for it."""
        begin = time.monotonic()
        print(f"{name} ...", flush=True)
        try:
            if begin - self._start > SECONDS:
                raise TimeoutError(f"left out: {SECONDS} s are over")
            result = section()
        except Exception as error:  # noqa: BLE001 (the report must go on)
            traceback.print_exc()
            self.results[name] = {"error": f"{type(error).__name__}: {error}"}
            return None
        print(f"  {time.monotonic() - begin:.1f} s", flush=True)
        self.results[name] = result
        return result


def _kernels(folder: Path, emulated: bool) -> Kernels:
    if emulated:
        return Kernels(str(build_emulated(folder / "emulated.so")))
    if find_nvcc() is not None:
        major, minor = torch.cuda.get_device_capability()
        try:
            return Kernels(str(build_cuda(folder / "cuda.so", [major * 10 + minor])))
        except subprocess.CalledProcessError as error:
            print(f"  {error}; taking ppool/_cuda.so if it is there")
    built = cuda_kernels()
    if built is None:
        raise FileNotFoundError("neither nvcc nor ppool/_cuda.so is here; see docs/gpu.md")
    return built


def _sanitizer(library: str) -> dict[str, Any]:
    """The checks again under compute-sanitizer, which finds stray reads and writes."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"passed": None, "reason": "compute-sanitizer is not here"}
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-m"]
    command += ["benchmarks.gpu", "--only-checks", "--library", library]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=150, cwd=ROOT, check=False
    )
    return {"passed": done.returncode == 0, "end of output": done.stdout[-800:]}


def _measure(sections: Sections, gpu: Gpu) -> None:
    copy = sections.run("copy bandwidth", speed.copy_bandwidth)
    if copy is not None:
        sections.run("forward", lambda: speed.operators(gpu, copy["GB/s"]))
    sections.run("forward and backward", speed.training)
    sections.run("ResizeArgMax", lambda: speed.resize_argmax(gpu))
    sections.run("VGG-16", speed.networks)


def _report(results: dict[str, Any]) -> None:
    """Print what was measured, the goals beside it."""
    for name, result in results.items():
        if isinstance(result, dict) and "passed" in result:
            print(f"{name}: {'passed' if result['passed'] else result}")
        if isinstance(result, dict) and "error" in result:
            print(f"{name}: {result['error']}")
    rows = results.get("forward")
    for row in rows if isinstance(rows, list) else []:
        print(
            f"forward {row['shape']} {row['dtype']} {row['window']}: "
            f"{row['ratio to max_pool2d']} of max_pool2d (goal {GOALS['unit / max_pool2d']}), "
            f"{row['share of copy bandwidth']} of copy (goal {GOALS['share of copy bandwidth']})"
        )
    rows = results.get("forward and backward")
    for row in rows if isinstance(rows, list) else []:
        print(
            f"both ways {row['dtype']} {row['window']}: {row['ratio to max_pool2d']} of max_pool2d "
            f"(goal {GOALS['forward and backward / max_pool2d']}), "
            f"module {row['PPool2d to max_pool2d']}"
        )
    rows = results.get("VGG-16")
    for row in rows if isinstance(rows, list) else []:
        print(
            f"{row['network']} {row['dtype']}: {row['ratio']}, as CUDA graphs "
            f"{row['ratio of graphs']} (goal {GOALS['VGG-16 / twin']})"
        )
    if isinstance(results.get("ResizeArgMax"), dict):
        print(f"ResizeArgMax: {results['ResizeArgMax'].get('times faster')} times faster")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="run the kernels on the host")
    parser.add_argument("--only-checks", action="store_true", help="measure nothing")
    parser.add_argument("--library", help="built kernels to take; default: build them")
    parser.add_argument("--output", type=Path, help="copy the JSON there, too")
    chosen = parser.parse_args()
    emulated = chosen.dry_run or not torch.cuda.is_available()
    if emulated:
        print("No GPU is used: the kernels run on the host, only results are checked.")
    sections = Sections()
    with TemporaryDirectory() as folder:
        given = chosen.library
        kernels = sections.run(
            "build", lambda: Kernels(given) if given else _kernels(Path(folder), emulated)
        )
        if kernels is None:
            sys.exit(1)
        sections.results["build"] = {"nvcc": find_nvcc() is not None, "emulated": emulated}
        gpu = Gpu(kernels, "cpu" if emulated else "cuda")
        sections.run("against the reference", lambda: checks.against_reference(gpu))
        sections.run("on a GPU", lambda: checks.on_a_gpu(gpu))
        if not emulated and not chosen.only_checks:
            # PyTorch's own road to the kernels takes the library that was just built.
            _use(kernels)
            _measure(sections, gpu)
            sections.run("compute-sanitizer", lambda: _sanitizer(kernels.path))
    _report(sections.results)
    passed = all(
        "error" not in result and result.get("passed") is not False
        for result in sections.results.values()
        if isinstance(result, dict)
    )
    if not emulated and not chosen.only_checks:
        sections.results["device"] = torch.cuda.get_device_name()
        sections.results["goals"] = GOALS
        path = write("gpu", "python -m benchmarks.gpu", sections.results)
        print(f"wrote {path.relative_to(RESULTS.parents[1])}")
        if chosen.output is not None:
            shutil.copy(path, chosen.output)
    sys.exit(0 if passed else 1)


def _use(kernels: Kernels) -> None:
    os.environ["PPOOL_CUDA_LIBRARY"] = kernels.path
    cuda_kernels.cache_clear()


if __name__ == "__main__":
    main()
