"""Check and measure the CUDA kernels on a machine with an NVIDIA GPU, or their logic without."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    version("ppool")
except PackageNotFoundError:
    folder = Path(__file__).parents[2]
    sys.exit(f"ppool is not installed: {sys.executable} -m pip install --no-deps -e {folder}")
