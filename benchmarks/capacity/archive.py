"""What a great many photos take on a cluster, by the measured cost of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Limits", "needed"]


@dataclass(frozen=True)
class Limits:
    """What is not measured here.

    Attributes:
        reads: Reads a second that a store answers below one prefix.
        writes: Writes, likewise.
        driver_bytes: Memory of the driver for the names of photos.
    """

    reads: float
    writes: float
    driver_bytes: float


def needed(cost: dict[str, Any], photos: float, cores: float, limits: Limits) -> dict[str, str]:
    """Time, and how full everything is that all cores share.

    Args:
        cost: The results of ``python -m benchmarks.capacity cluster``.
        photos: How many there are.
        cores: With an actor each.
        limits: Of the store and the driver.

    Returns:
        Rows of a table, in words.
    """
    seconds, a_shard = cost["cpu_seconds"]["ray"], cost["photos_a_shard"]
    rate = cores / seconds
    reads = cost["gets_a_photo"] + cost["gets_a_shard"] / a_shard
    writes = cost["puts_a_photo"] + cost["puts_a_shard"] / a_shard
    driver = cost["driver_cpu_seconds_a_shard"] / a_shard + cost["driver_cpu_seconds_a_photo"]
    names = photos * cost["driver_bytes_a_photo"]
    return {
        "photos a second": f"{rate:,.0f}",
        "days": f"{photos / rate / 86_400:,.1f}",
        "core-hours": f"{photos * seconds / 3600:,.0f}",
        "reads of the store": _share(reads, rate, limits.reads, "prefix"),
        "writes": _share(writes, rate, limits.writes, "prefix"),
        "bytes read, written": f"{cost['photo_bytes'] * rate / 1e6:,.0f}, "
        f"{cost['mask_bytes'] * rate / 1e6:,.0f} MB/s",
        "core of the driver": f"busy {driver * rate:.1%}, full at {seconds / driver:,.0f} cores",
        "names in the driver": f"{names / 1e9:,.0f} GB: "
        f"{max(1, -(-names // limits.driver_bytes)):,.0f} runs",
    }


def _share(each: float, rate: float, limit: float, of_what: str) -> str:
    return (
        f"{each:.2f} a photo, {each * rate:,.0f} a second: {each * rate / limit:.1f} of a {of_what}"
    )
