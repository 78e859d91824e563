"""How many cores a container may use, from the files that the kernel shows it."""

import math
from pathlib import Path

import pytest

from ppool.service.workers.cores import usable_cores

DOCKER = "/docker/0a1b"


def put(system: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = system / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return system


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("1600000 100000", 8),
        ("nonsense", 8),
    ],
)
def test_the_quota_of_cgroup_2_counts_rounded_up(tmp_path: Path, quota: str, expected: int) -> None:
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota}
    assert usable_cores(put(tmp_path, files), granted=8) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("250000", 3), ("1000", 1)])
@pytest.mark.parametrize("folder", ["", DOCKER], ids=["own namespace", "the host's path"])
def test_the_quota_of_cgroup_1_counts_rounded_up(
    tmp_path: Path, quota: str, expected: int, folder: str
) -> None:
    files = {
        "proc/self/cgroup": f"5:memory:/\n4:cpu,cpuacct:{folder or '/'}",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert usable_cores(put(tmp_path, files), granted=8) == expected


def test_the_least_of_all_cgroups_above_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pods/one/container",
        "sys/fs/cgroup/pods/cpu.max": "600000 100000",
        "sys/fs/cgroup/pods/one/cpu.max": "300000 100000",
        "sys/fs/cgroup/pods/one/container/cpu.max": "max 100000",
        "sys/fs/cgroup/elsewhere/cpu.max": "100000 100000",
    }
    assert usable_cores(put(tmp_path, files), granted=8) == 3


def test_without_cgroups_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, granted=8) == 8
    assert 1 <= usable_cores(tmp_path) < math.inf
