"""The capacity model against what it stands for: queues, the autoscaler, a day of traffic."""

import dataclasses
import heapq
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.capacity import simulate as day
from benchmarks.capacity.autoscaler import Autoscaler, Direction, Observation, Rules
from benchmarks.capacity.queueing import Pod, Units, demand, p99_seconds, plan

MANIFEST = Path(__file__).parents[2] / "k8s" / "overlays" / "cpu" / "autoscaler.yaml"
EAGER = Direction(0, (("Percent", 900, 15),))
RULES = Rules({"cpu": 0.7}, minimum=1, maximum=100, up=EAGER, down=Direction(0, EAGER.policies))
SITE = day.Site(images_per_second=20, queue_images=100, start_seconds=30)
rates = st.floats(0.1, 500)


def simulated_p99(pod: Pod, rate: float) -> float:
    """A real queue: Poisson arrivals, constant service, first come first served."""
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / rate, 60_000))
    free = [0.0] * pod.workers
    times = []
    for arrival in arrivals:
        end = max(arrival, heapq.heappop(free)) + pod.service_seconds
        heapq.heappush(free, end)
        times.append(end - arrival)
    return float(np.quantile(times[1000:], 0.99))


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8, 0.9])
def test_the_p99_is_that_of_a_simulated_queue_or_somewhat_more(workers: int, busy: float) -> None:
    pod = Pod(images_per_second=10 * workers, workers=workers)
    rate = busy * pod.images_per_second
    assert 0.95 <= p99_seconds(pod, rate) / simulated_p99(pod, rate) <= 1.2


@given(rate=rates, more=st.floats(1, 3), p99=st.floats(0.2, 5))
def test_a_plan_keeps_its_promise_and_grows_with_the_rate(
    rate: float, more: float, p99: float
) -> None:
    pod = Pod(images_per_second=20, workers=2)
    found = plan(pod, rate, p99)
    assert p99_seconds(pod, rate / (found.replicas - 1)) <= p99
    assert plan(pod, rate * more, p99).replicas >= found.replicas
    assert plan(pod, rate, p99 * more).replicas <= found.replicas


def test_an_overfull_pod_has_no_p99() -> None:
    assert p99_seconds(Pod(20, 2), 20) == math.inf


def test_a_promise_below_one_image_s_own_time_is_refused() -> None:
    with pytest.raises(ValueError, match="expected more than 100 ms"):
        plan(Pod(20, 2), 5, 0.1)


def test_every_resource_is_needed_in_proportion_to_the_rate() -> None:
    units = Units(cpu_seconds=0.08, edge_cpu_seconds=0.008, bytes_in_and_out=125_000)
    one, thousand = demand(units, 1), demand(units, 1000)
    assert thousand == pytest.approx({name: 1000 * value for name, value in one.items()})
    assert thousand["nodes, inference on CPUs"] == pytest.approx(5)
    assert thousand["network links of one node"] == pytest.approx(0.1)


def decide(ready: int, mean: float, rules: Rules = RULES, starting: int = 0) -> int:
    return Autoscaler(rules).decide(0, Observation(ready, starting, {"cpu": mean}))


def test_the_autoscaler_reads_the_manifest_that_ships() -> None:
    rules = Rules.read(MANIFEST)
    assert rules.targets == {"cpu": 0.7, "ppool_queue_seconds": 0.25}
    assert (rules.minimum, rules.maximum) == (2, 40)
    assert rules.up == Direction(0, (("Percent", 100, 15), ("Pods", 4, 15)))
    assert rules.down == Direction(300, (("Percent", 25, 60),))


@pytest.mark.parametrize(
    ("mean", "replicas"),
    [(1.4, 8), (0.35, 2), (0.7, 4), (0.76, 4), (0.64, 4), (0.79, 5)],
    ids=["twice", "half", "on target", "a little over", "a little under", "over by more than 10 %"],
)
def test_replicas_follow_the_ratio_outside_the_tolerance(mean: float, replicas: int) -> None:
    assert decide(4, mean) == replicas


def test_starting_pods_count_as_idle_before_more_are_started() -> None:
    assert decide(2, 1.4, starting=0) == 4
    assert decide(2, 1.4, starting=2) == 4
    assert decide(2, 2.8, starting=2) == 8


def test_bounds_and_policies_hold() -> None:
    slow = dataclasses.replace(RULES, up=Direction(0, (("Pods", 1, 60),)), maximum=6)
    scaler = Autoscaler(slow)
    counts = [4]
    for now in range(0, 300, 15):
        counts.append(scaler.decide(now, Observation(counts[-1], 0, {"cpu": 5.0})))
    assert counts[:6] == [4, 5, 5, 5, 5, 6]
    assert max(counts) == 6
    assert decide(4, 0.0) == 1


def test_scaling_down_waits_for_the_window() -> None:
    patient = dataclasses.replace(RULES, down=Direction(60, RULES.down.policies))
    scaler = Autoscaler(patient)
    assert scaler.decide(0, Observation(4, 0, {"cpu": 0.7})) == 4
    assert scaler.decide(45, Observation(4, 0, {"cpu": 0.1})) == 4
    assert scaler.decide(60, Observation(4, 0, {"cpu": 0.1})) == 4
    assert scaler.decide(75, Observation(4, 0, {"cpu": 0.1})) == 1


def test_without_a_ready_pod_nothing_is_decided() -> None:
    assert Autoscaler(RULES).decide(0, Observation(0, 3, {})) == 3


@settings(max_examples=25, deadline=None)
@given(mean=rates, burst=st.floats(1, 10), replicas=st.none() | st.integers(1, 30))
def test_every_image_is_served_refused_or_still_waiting(
    mean: float, burst: float, replicas: int | None
) -> None:
    traffic = day.daily(mean, 0.5, burst, seconds=3600)
    one = day.run(traffic, SITE, replicas or RULES, seconds=3600)
    assert sum(one.arrived) == pytest.approx(sum(one.served) + sum(one.refused) + one.waiting[-1])
    assert min(*one.served, *one.refused, *one.waiting) >= 0
    assert max(one.ready) <= max(one.replicas) <= 101


@pytest.mark.parametrize("more", [1.5, 3.0])
def test_more_traffic_never_means_fewer_replicas_or_refusals(more: float) -> None:
    less, greater = (
        day.run(day.daily(60 * factor, 0.6, 3, 7200), SITE, RULES, 7200) for factor in (1.0, more)
    )
    assert greater.replica_hours > less.replica_hours
    assert sum(greater.refused) >= sum(less.refused)


def test_more_replicas_never_mean_more_refusals() -> None:
    traffic = day.daily(100, 0.6, 3, 3600)
    refused = [sum(day.run(traffic, SITE, count, 3600).refused) for count in range(5, 25, 5)]
    assert refused == sorted(refused, reverse=True)
    assert refused[0] > 0


def test_a_burst_is_met_once_the_pods_have_started() -> None:
    def traffic(second: int) -> float:
        return 20 if second < 600 else 200

    one = day.run(traffic, SITE, dataclasses.replace(RULES, maximum=40), 1500)
    assert sum(one.refused[:600]) == 0
    assert sum(one.refused[600:630]) > 0
    assert one.replicas[599] < 4
    assert one.ready[800] * SITE.images_per_second > 200
    assert sum(one.refused[800:]) == 0
    assert one.wait_seconds[-1] < 1


def test_wait_alone_is_a_poor_guide() -> None:
    rules = Rules.read(MANIFEST)
    traffic = day.daily(120, 0.6, 3, 14_400)
    shipped = day.run(traffic, SITE, rules, 14_400)
    alone = dataclasses.replace(rules, targets={"ppool_queue_seconds": 0.25})
    by_wait = day.run(traffic, SITE, alone, 14_400)
    assert by_wait.replica_hours > shipped.replica_hours
    assert by_wait.refused_share > shipped.refused_share
