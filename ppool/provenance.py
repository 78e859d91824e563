"""Where a number comes from: commit, versions and hardware."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["provenance"]

PACKAGES = ("ppool", "torch", "numpy", "onnxruntime", "opencv-python-headless", "pillow")


def provenance() -> dict[str, Any]:
    """Commit, package versions and processor, for the record beside every reported number."""
    return {"commit": _commit(), "versions": _versions(), "processor": _processor()}


def _commit() -> str:
    """Of the clone that this file is in; ``unknown`` where it was installed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(  # noqa: S603 (a constant command)
            command, cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    count = sum(line.startswith("processor") for line in lines)
    return f"{count} x {' / '.join(sorted(names))}"
