"""What processor there is: the cores this process may use, and what they can do."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

__all__ = ["multiplies_bytes", "usable_cores"]


# As /proc/cpuinfo calls them, of x86 and of ARM.
_OF_BYTES = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


def usable_cores(system: Path = Path("/"), granted: int | None = None) -> int:
    """Cores that are worth a worker each; at least 1.

    A container's CPU limit, such as ``limits.cpu`` in Kubernetes, leaves all cores visible and
    stops the process when its time is used up. So the limit counts, rounded up.

    Args:
        system: The root of the file system with ``proc`` and ``sys``.
        granted: Cores that this process may be put on; by default the system says.
    """
    quota = min(_quotas(system), default=math.inf)
    granted = _granted() if granted is None else granted
    return max(1, min(granted, math.ceil(quota) if quota < math.inf else sys.maxsize))


def multiplies_bytes(system: Path = Path("/")) -> bool:
    """Whether the processor has instructions that make int8 pay, by what Linux says of it."""
    try:
        text = (system / "proc/cpuinfo").read_text()
    except OSError:
        return False
    return not _OF_BYTES.isdisjoint(text.split())


def _granted() -> int:
    """By affinity, or as ``PYTHON_CPU_COUNT`` has it where Python knows that variable."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(system: Path) -> Iterator[float]:
    """In cores, of each cgroup that this process is in and of all above it.

    Source: cgroups(7), and the kernel's documentation of ``cpu.max`` and ``cpu.cfs_quota_us``.
    """
    with suppress(OSError):
        for line in (system / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mounted = system / "sys/fs/cgroup" / ("cpu" if controllers else "")
            group = PurePosixPath(path.lstrip("/"))
            # In a container the path may be the host's, and then only the top is there to see.
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):
                    yield _quota(mounted / folder, unified=not controllers)


def _quota(group: Path, *, unified: bool) -> float:
    if unified:
        quota, period = (group / "cpu.max").read_text().split()
    else:
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    unlimited = quota == "max" or int(quota) < 0
    return math.inf if unlimited else int(quota) / int(period)
