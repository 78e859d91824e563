"""Replicas and cost for a rate and a p99; which resource is the first to run out.

Each pod is one queue before ``workers`` servers, fed at random by its load balancer. The wait is
Erlang's for M/M/c, C(c, a) exp(-t (1 - rho) c / s), with the decay doubled, which is its
heavy-traffic limit for a constant service time (Kingman); a test compares it with a simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Plan", "Pod", "Units", "demand", "p99_seconds", "plan"]


@dataclass(frozen=True)
class Pod:
    """One replica.

    Attributes:
        images_per_second: At most, with every worker busy.
        workers: Images it works on at a time.
    """

    images_per_second: float
    workers: int

    @property
    def service_seconds(self) -> float:
        """Time one image takes a worker."""
        return self.workers / self.images_per_second


@dataclass(frozen=True)
class Plan:
    """``replicas`` with one of them away still answer within ``p99_seconds``."""

    replicas: int
    busy: float
    p99_seconds: float


def waiting_probability(servers: int, offered: float) -> float:
    """Erlang's C: whether an arrival waits; ``offered``, below ``servers``, are busy on average."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def p99_seconds(pod: Pod, rate: float) -> float:
    """The 99th percentile of an answer's time when ``rate`` images a second reach one pod."""
    busy = rate / pod.images_per_second
    if busy >= 1:
        return math.inf
    waits = waiting_probability(pod.workers, busy * pod.workers)
    decay = 2 * (1 - busy) * pod.images_per_second
    return pod.service_seconds + max(0.0, math.log(waits / 0.01) / decay)


def plan(pod: Pod, rate: float, p99: float) -> Plan:
    """The fewest replicas for ``rate`` images a second within ``p99`` seconds, and one to spare.

    Raises:
        ValueError: if one image alone already takes longer.
    """
    if pod.service_seconds >= p99:
        raise ValueError(
            f"p99: expected more than {pod.service_seconds * 1e3:.0f} ms, which one image takes "
            f"alone, got {p99 * 1e3:.0f} ms; take a faster model or processor, or smaller photos"
        )
    needed = math.floor(rate / pod.images_per_second) + 1
    while p99_seconds(pod, rate / needed) > p99:
        needed += 1
    share = rate / needed
    return Plan(needed + 1, share / pod.images_per_second, p99_seconds(pod, share))


@dataclass(frozen=True)
class Units:
    """What one unit of a resource gives; all but the first two are the reader's to set.

    Attributes:
        cpu_seconds: CPU time of one image, inference included. Measured.
        edge_cpu_seconds: The part that stays on the CPU when a GPU infers. Measured.
        bytes_in_and_out: Of one request and its answer. Measured.
        node_cores: Cores of a node.
        node_gigabits: Network of a node, each way.
        ingress_requests: Requests a second that one ingress core passes on.
        gpu_images: Images a second of one GPU.
    """

    cpu_seconds: float
    edge_cpu_seconds: float
    bytes_in_and_out: int
    node_cores: int = 16
    node_gigabits: float = 10.0
    ingress_requests: float = 2000.0
    gpu_images: float = 500.0


def demand(units: Units, rate: float) -> dict[str, float]:
    """Units of every resource that ``rate`` images a second take up."""
    gigabits = rate * units.bytes_in_and_out * 8 / 1e9
    return {
        "nodes, inference on CPUs": rate * units.cpu_seconds / units.node_cores,
        "GPUs instead": rate / units.gpu_images,
        "nodes, decoding for GPUs": rate * units.edge_cpu_seconds / units.node_cores,
        "ingress cores": rate / units.ingress_requests,
        "network links of one node": gigabits / units.node_gigabits,
    }
