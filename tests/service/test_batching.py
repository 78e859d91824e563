"""The batching policy, on a clock that only the tests move."""

import gc
import tracemalloc
from contextlib import suppress
from math import inf
from operator import itemgetter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppool.service import scheduling
from ppool.service.errors import Refused
from ppool.service.scheduling.batcher import (
    Batch,
    Batcher,
    Limits,
    Ticket,
    batch_ladder,
)
from ppool.service.scheduling.costs import Costs


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def costs() -> Costs[str]:
    return Costs(lambda key: ("family", float(len(key))))


def batcher(
    clock: Clock, costs: Costs[str] | None = None, *, images: int = 8, most: int = 4, lanes: int = 1
) -> Batcher[str, str]:
    learned = costs or Costs(lambda _: ("family", 1.0))
    return Batcher(Limits(images, 1000, most), learned, clock, lanes)


def push(
    queue: Batcher[str, str], key: str, item: str, *, size: int = 1, deadline: float = 99
) -> Ticket[str, str]:
    return queue.push(key, item, size=size, deadline=deadline)


def items(batch: Batch[str, str] | None) -> list[str]:
    assert batch is not None
    return [ticket.item for ticket in batch.tickets]


def refusal(queue: Batcher[str, str], key: str = "a", **options: float) -> Refused:
    with pytest.raises(Refused) as caught:
        push(queue, key, "refused", **options)  # type: ignore[arg-type]
    return caught.value


def test_nothing_waiting_gives_no_batch(clock: Clock) -> None:
    assert batcher(clock).take() is None


def test_a_lone_image_is_taken_at_once(clock: Clock) -> None:
    queue = batcher(clock)
    push(queue, "a", "1")
    assert items(queue.take()) == ["1"]
    assert len(queue) == 0


def test_only_images_of_one_key_share_a_batch(clock: Clock) -> None:
    queue = batcher(clock)
    for key, item in (("a", "1"), ("b", "2"), ("a", "3")):
        push(queue, key, item)
    assert items(queue.take()) == ["1", "3"]
    assert items(queue.take()) == ["2"]


def test_the_bucket_with_the_earliest_deadline_goes_first(clock: Clock) -> None:
    queue = batcher(clock)
    push(queue, "late", "1", deadline=9)
    push(queue, "early", "2", deadline=5)
    assert items(queue.take()) == ["2"]


def test_within_a_bucket_the_earliest_deadline_goes_first(clock: Clock) -> None:
    queue = batcher(clock, most=1)
    for item, deadline in (("9", 9), ("3", 3), ("5", 5), ("3 too", 3)):
        push(queue, "a", item, deadline=deadline)
    assert [items(queue.take()) for _ in range(4)] == [["3"], ["3 too"], ["5"], ["9"]]


def test_a_batch_has_a_size_of_the_ladder_and_the_rest_waits(clock: Clock) -> None:
    queue = batcher(clock)
    for item in "123":
        push(queue, "a", item)
    assert items(queue.take()) == ["1", "2"]
    assert items(queue.take()) == ["3"]


def test_too_many_images_are_refused_and_accepted_again_after_a_batch(clock: Clock) -> None:
    queue = batcher(clock, images=2, most=2)
    push(queue, "a", "1")
    push(queue, "b", "2")
    with pytest.raises(Refused, match="queue"):
        queue.check(deadline=99)
    assert refusal(queue).reason == "queue"
    queue.take()
    push(queue, "a", "3")


def test_too_many_bytes_are_refused_but_never_a_lone_image(clock: Clock) -> None:
    queue = batcher(clock)
    push(queue, "a", "huge", size=5000)
    with pytest.raises(Refused, match="bytes"):
        queue.check(deadline=99)
    assert refusal(queue, size=1).reason == "bytes"
    queue.take()
    push(queue, "a", "1", size=600)
    assert refusal(queue, size=401).reason == "bytes"
    push(queue, "a", "2", size=400)


def test_an_expired_image_is_reported_and_not_run(clock: Clock) -> None:
    queue = batcher(clock)
    push(queue, "a", "late", deadline=1)
    push(queue, "a", "in time", deadline=3)
    clock.now = 2
    batch = queue.take()
    assert items(batch) == ["in time"]
    assert batch is not None
    assert [ticket.item for ticket in batch.expired] == ["late"]


def test_an_image_expires_exactly_at_its_deadline(clock: Clock) -> None:
    queue = batcher(clock)
    push(queue, "a", "1", deadline=1)
    clock.now = 1
    batch = queue.take()
    assert items(batch) == []
    assert batch is not None
    assert len(batch.expired) == 1
    assert queue.take() is None


def test_a_cancelled_image_leaves_and_its_neighbours_stay(clock: Clock) -> None:
    queue = batcher(clock, images=3)
    tickets = [push(queue, "a", item) for item in "123"]
    queue.cancel(tickets[1])
    assert len(queue) == 2
    assert items(queue.take()) == ["1", "3"]


def test_cancelling_what_was_taken_changes_nothing(clock: Clock) -> None:
    queue = batcher(clock)
    taken = push(queue, "a", "1")
    queue.take()
    push(queue, "a", "2")
    queue.cancel(taken)
    assert items(queue.take()) == ["2"]


@pytest.mark.parametrize(
    ("lone", "batches"), [(True, [["1"], ["2"], ["3", "4"]]), (False, [["1", "2", "3", "4"]])]
)
def test_a_retried_image_runs_in_its_turn_and_alone_if_it_is_suspect(
    clock: Clock, lone: bool, batches: list[list[str]]
) -> None:
    queue = batcher(clock)
    for item in "12":
        push(queue, "a", item)
    lost = queue.take()
    assert lost is not None
    push(queue, "a", "3")
    push(queue, "a", "4")
    for ticket in lost.tickets:
        queue.retry(ticket, lone=lone)
    assert [items(queue.take()) for _ in batches] == batches


@pytest.mark.parametrize(("lanes", "wait"), [(1, 3.5), (2, 1.75)])
def test_the_wait_is_what_runs_and_waits_over_the_lanes(
    clock: Clock, costs: Costs[str], lanes: int, wait: float
) -> None:
    costs.observe("a", 1, 1.0)
    queue = batcher(clock, costs, most=1, lanes=lanes)
    assert queue.wait_seconds() == 0
    for item in "1234":
        push(queue, "a", item)
    running = queue.take()
    assert running is not None
    clock.now = 0.5
    assert queue.wait_seconds() == wait
    queue.done(running, None)
    assert queue.wait_seconds() == 3 / lanes


def test_a_batch_taken_ahead_costs_its_whole_time_until_it_begins(
    clock: Clock, costs: Costs[str]
) -> None:
    costs.observe("a", 1, 1.0)
    queue = batcher(clock, costs, most=1)
    for item in "12":
        push(queue, "a", item)
    running, ahead = queue.take(), queue.take(ahead=True)
    assert running is not None
    assert ahead is not None
    assert (queue.ends(running), queue.ends(ahead)) == (1.0, None)
    clock.now = 0.75
    assert queue.wait_seconds() == 1.25
    queue.done(running, None)
    queue.begin(ahead)
    clock.now = 1.0
    assert (queue.ends(ahead), queue.wait_seconds()) == (1.75, 0.75)
    queue.done(ahead, None)
    assert queue.wait_seconds() == 0


def test_with_a_free_lane_and_nothing_waiting_there_is_no_wait(
    clock: Clock, costs: Costs[str]
) -> None:
    costs.observe("a", 1, 1.0)
    queue = batcher(clock, costs, lanes=2)
    push(queue, "a", "1")
    queue.take()
    assert queue.wait_seconds() == 0


def test_what_cannot_be_done_in_time_is_refused_with_the_time_to_come_back(
    clock: Clock, costs: Costs[str]
) -> None:
    costs.observe("a", 1, 1.0)
    queue = batcher(clock, costs, most=1)
    push(queue, "a", "1")
    queue.take()
    push(queue, "a", "2")
    # 2 s of work before it and 1 s of its own, with half of that to spare.
    late = refusal(queue, deadline=4)
    assert (late.reason, late.retry_seconds) == ("deadline", 0.5)
    with pytest.raises(Refused, match="deadline"):
        queue.check(deadline=2.5)
    queue.check(deadline=3)
    push(queue, "a", "3", deadline=4.5)


@given(st.randoms(use_true_random=True), st.integers(1, 3), st.floats(0.5, 4))
def test_under_any_load_what_is_accepted_is_in_time_though_batches_take_a_quarter_longer(
    source: Random, lanes: int, load: float
) -> None:
    clock, costs = Clock(), Costs[str](lambda _: ("family", 1.0))
    costs.observe("a", 1, 1.0)
    queue = batcher(clock, costs, images=200, most=1, lanes=lanes)
    running: list[tuple[float, float, Batch[str, str]]] = []

    def work(until: float, seconds: float) -> None:
        while True:
            while len(running) < lanes and (batch := queue.take()) is not None:
                running.append((clock.now + seconds, clock.now, batch))
            running.sort(key=itemgetter(0))
            if not running or running[0][0] > until:
                break
            clock.now, start, batch = running.pop(0)
            queue.done(batch, clock.now - start)
            assert not batch.expired
            assert clock.now <= batch.tickets[0].deadline

    arrival = 0.0
    for index in range(100):
        arrival += source.expovariate(load * lanes)
        work(arrival, 1.0 if index < 50 else 1.25)
        clock.now = arrival
        with suppress(Refused):
            push(queue, "a", str(index), deadline=arrival + source.choice((2, 20)))
    work(inf, 1.25)


def test_an_idle_service_tries_even_what_seems_too_slow(clock: Clock, costs: Costs[str]) -> None:
    """Or one stall would be remembered for ever."""
    costs.observe("a", 1, 100.0)
    push(batcher(clock, costs), "a", "1", deadline=1)


def teach(costs: Costs[str], each: float, fixed: float) -> None:
    for size in (1, 2, 4):
        costs.observe("a", size, each * size + fixed)


def arrive(queue: Batcher[str, str], clock: Clock, gap: float, count: int) -> None:
    for index in range(count):
        push(queue, "a", str(index))
        clock.now += gap


def test_where_sharing_pays_an_image_waits_for_company_no_longer_than_it_saves(
    clock: Clock, costs: Costs[str]
) -> None:
    teach(costs, each=1.0, fixed=4.0)
    queue = batcher(clock, costs)
    arrive(queue, clock, gap=1.0, count=2)
    assert queue.take() is None
    assert queue.release_at() == 4.0
    clock.now = 4.0
    # Else the moment could pass unseen between the two questions.
    assert queue.release_at() == 4.0
    assert items(queue.take()) == ["0", "1"]
    assert queue.release_at() is None


def test_a_full_batch_does_not_wait(clock: Clock, costs: Costs[str]) -> None:
    teach(costs, each=1.0, fixed=4.0)
    queue = batcher(clock, costs)
    arrive(queue, clock, gap=0.5, count=4)
    assert items(queue.take()) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("each", "fixed", "gap"), [(1.0, 4.0, 5.0), (1.0, 0.2, 0.1), (1.0, 0.0, 0.1)]
)
def test_nothing_waits_when_images_are_rare_or_sharing_saves_little(
    clock: Clock, costs: Costs[str], each: float, fixed: float, gap: float
) -> None:
    teach(costs, each, fixed)
    queue = batcher(clock, costs)
    arrive(queue, clock, gap, count=2)
    assert items(queue.take()) == ["0", "1"]


def test_a_near_deadline_ends_the_wait(clock: Clock, costs: Costs[str]) -> None:
    teach(costs, each=1.0, fixed=4.0)
    queue = batcher(clock, costs)
    push(queue, "a", "0", deadline=12.75)
    clock.now = 1
    push(queue, "a", "1")
    # A batch of three takes 7 s, 10.5 with the margin.
    assert queue.release_at() == pytest.approx(2.25)


def test_costs_are_means_and_between_them_a_line(costs: Costs[str]) -> None:
    for size, seconds in ((1, 3.0), (4, 9.0)):
        costs.observe("a", size, seconds)
    assert costs.line("a") == (2.0, 1.0)
    assert [costs.seconds("a", size) for size in (1, 2, 4, 8)] == [3, 5, 9, 17]


def test_an_unseen_bucket_is_priced_by_its_size(costs: Costs[str]) -> None:
    assert costs.seconds("bb", 3) == 0
    costs.observe("a", 2, 4.0)
    assert costs.seconds("bbb", 2) == 12.0


def test_one_outlier_moves_a_cost_little_and_a_new_level_is_learned(costs: Costs[str]) -> None:
    costs.observe("a", 1, 1.0)
    costs.observe("a", 1, 1000.0)
    assert costs.seconds("a", 1) == 1.5
    for _ in range(40):
        costs.observe("a", 1, 10.0)
    assert costs.seconds("a", 1) == pytest.approx(10.0, rel=0.01)


@given(st.dictionaries(st.integers(1, 64), st.floats(1e-4, 1e2), min_size=1), st.integers(1, 64))
def test_a_learned_cost_is_never_negative(seen: dict[int, float], size: int) -> None:
    costs: Costs[str] = Costs(lambda _: ("family", 1.0))
    for count, seconds in seen.items():
        costs.observe("a", count, seconds)
    assert costs.seconds("a", size) > 0
    assert min(costs.line("a")) >= 0


@pytest.mark.parametrize(
    ("maximum", "ladder"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))]
)
def test_the_ladder_is_powers_of_two_and_the_maximum(maximum: int, ladder: tuple[int, ...]) -> None:
    assert batch_ladder(maximum) == ladder


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20)), max_size=40),
    st.integers(1, 9),
    st.integers(0, 20),
)
def test_every_image_leaves_once_in_the_order_of_its_buckets_deadlines(
    pushed: list[tuple[str, int]], maximum: int, now: int
) -> None:
    clock = Clock()
    queue = batcher(clock, images=len(pushed) + 1, most=maximum)
    for index, (key, deadline) in enumerate(pushed):
        push(queue, key, str(index), deadline=deadline)
    clock.now = now
    run: list[int] = []
    expired: list[int] = []
    while (batch := queue.take()) is not None:
        assert len({ticket.key for ticket in batch.tickets}) <= 1
        assert len(batch.tickets) in (0, *batch_ladder(maximum))
        run += [int(ticket.item) for ticket in batch.tickets]
        expired += [int(ticket.item) for ticket in batch.expired]
    assert len(queue) == 0
    assert sorted(expired) == [i for i, (_, deadline) in enumerate(pushed) if deadline <= now]
    assert sorted(run + expired) == list(range(len(pushed)))
    for key in "abc":
        of_key = [(pushed[index][1], index) for index in run if pushed[index][0] == key]
        assert of_key == sorted(of_key)


def test_what_took_a_lane_in_vain_is_not_tried_again_at_once(clock: Clock) -> None:
    queue = batcher(clock)
    queue.push("slow", "photo", size=1, deadline=30)
    batch = queue.take()
    assert batch is not None
    clock.now = 30
    queue.done(batch, 30, wasted_seconds=30)
    assert refusal(queue, "slow", deadline=60).reason == "deadline"
    # What is not too slow is let in, and so is the other when some time has passed.
    queue.cancel(queue.push("slow", "photo", size=1, deadline=90))
    clock.now = 331
    queue.push("slow", "photo", size=1, deadline=361)


def test_what_seems_too_slow_is_tried_only_where_nothing_else_is(clock: Clock) -> None:
    costs: Costs[str] = Costs(lambda key: (key, 1.0))
    costs.observe("slow", 1, 60)
    queue = batcher(clock, costs, lanes=2)
    queue.push("fast", "photo", size=1, deadline=30)
    batch = queue.take()
    assert batch is not None
    assert refusal(queue, "slow", deadline=30).reason == "deadline"
    queue.done(batch, 0.01)
    queue.push("slow", "photo", size=1, deadline=30)


class Counted(Costs[str]):
    """Counts how often a price is asked."""

    asked = 0

    def seconds(self, key: str, count: int) -> float:
        self.asked += 1
        return super().seconds(key, count)

    def line(self, key: str) -> tuple[float, float]:
        self.asked += 1
        return super().line(key)


def test_a_request_costs_no_more_after_two_thousand_shapes(clock: Clock) -> None:
    costs = Counted(lambda key: (key[0], 1.0))
    queue = batcher(clock, costs)

    def spent(shapes: range) -> set[int]:
        asked = set()
        for shape in shapes:
            clock.now += 1
            before = costs.asked
            queue.push(f"a{shape}", "photo", size=1, deadline=inf)
            batch = queue.take()
            assert batch is not None
            queue.done(batch, 0.01)
            asked.add(costs.asked - before)
        return asked

    def held() -> int:
        gc.collect()
        ours = tracemalloc.Filter(True, str(Path(scheduling.__file__).parent / "*"))
        kept = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
        return sum(statistic.size for statistic in kept)

    (least,) = spent(range(1))
    tracemalloc.start()
    try:
        assert max(spent(range(1, 1000))) == least
        had = held()
        assert had
        assert max(spent(range(1000, 2000))) == least
        now = held()
    finally:
        tracemalloc.stop()
    assert queue.waiting() == []
    # A thousand shapes that are kept take a hundred times as much.
    assert now - had < 4096


def test_what_was_learned_of_a_model_goes_with_it() -> None:
    costs: Costs[str] = Costs(lambda key: (key[0], 1.0))
    for key in ("a1", "b1"):
        costs.observe(key, 1, 2.0)
    costs.forget(lambda family: family == "a")
    assert [costs.seconds(key, 1) for key in ("a1", "a2", "b1", "b2")] == [0, 0, 2, 2]
