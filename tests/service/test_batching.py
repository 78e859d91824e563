"""The batching policy, on a clock that only the tests move."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching import Batch, Batcher, QueueFull, batch_ladder


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def items(batch: Batch[str, str] | None) -> list[str]:
    assert batch is not None
    return [ticket.item for ticket in batch.tickets]


def test_nothing_waiting_gives_no_batch(clock: Clock) -> None:
    assert Batcher[str, str](8, 4, clock).take() is None


def test_a_lone_image_is_taken_at_once(clock: Clock) -> None:
    batcher = Batcher[str, str](8, 4, clock)
    batcher.push("a", "1", deadline=9)
    assert items(batcher.take()) == ["1"]
    assert len(batcher) == 0


def test_only_images_of_one_key_share_a_batch(clock: Clock) -> None:
    batcher = Batcher[str, str](8, 4, clock)
    for key, item in (("a", "1"), ("b", "2"), ("a", "3")):
        batcher.push(key, item, deadline=9)
    assert items(batcher.take()) == ["1", "3"]
    assert items(batcher.take()) == ["2"]


def test_the_bucket_with_the_earliest_deadline_goes_first(clock: Clock) -> None:
    batcher = Batcher[str, str](8, 4, clock)
    batcher.push("late", "1", deadline=9)
    batcher.push("early", "2", deadline=5)
    assert items(batcher.take()) == ["2"]


def test_a_batch_has_a_size_of_the_ladder_and_the_rest_waits(clock: Clock) -> None:
    batcher = Batcher[str, str](8, 4, clock)
    for item in "123":
        batcher.push("a", item, deadline=9)
    assert items(batcher.take()) == ["1", "2"]
    assert items(batcher.take()) == ["3"]


def test_a_full_queue_refuses_and_accepts_again_after_a_batch(clock: Clock) -> None:
    batcher = Batcher[str, str](2, 2, clock)
    batcher.push("a", "1", deadline=9)
    batcher.push("b", "2", deadline=9)
    with pytest.raises(QueueFull):
        batcher.push("a", "3", deadline=9)
    batcher.take()
    batcher.push("a", "3", deadline=9)


def test_an_expired_image_is_reported_and_not_run(clock: Clock) -> None:
    batcher = Batcher[str, str](8, 4, clock)
    batcher.push("a", "late", deadline=1)
    batcher.push("a", "in time", deadline=3)
    clock.now = 2
    batch = batcher.take()
    assert items(batch) == ["in time"]
    assert batch is not None
    assert [ticket.item for ticket in batch.expired] == ["late"]


def test_an_image_expires_exactly_at_its_deadline(clock: Clock) -> None:
    batcher = Batcher[str, str](8, 4, clock)
    batcher.push("a", "1", deadline=1)
    clock.now = 1
    batch = batcher.take()
    assert items(batch) == []
    assert batch is not None
    assert len(batch.expired) == 1
    assert batcher.take() is None


def test_a_cancelled_image_leaves_and_its_neighbours_stay(clock: Clock) -> None:
    batcher = Batcher[str, str](3, 4, clock)
    tickets = [batcher.push("a", item, deadline=9) for item in "123"]
    batcher.cancel(tickets[1])
    assert len(batcher) == 2
    assert items(batcher.take()) == ["1", "3"]


def test_cancelling_what_was_taken_changes_nothing(clock: Clock) -> None:
    batcher = Batcher[str, str](8, 4, clock)
    taken = batcher.push("a", "1", deadline=9)
    batcher.take()
    batcher.push("a", "2", deadline=9)
    batcher.cancel(taken)
    assert items(batcher.take()) == ["2"]


def test_a_ticket_notes_when_it_was_queued(clock: Clock) -> None:
    clock.now = 7
    assert Batcher[str, str](8, 4, clock).push("a", "1", deadline=9).queued == 7


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
def test_every_image_leaves_once_in_its_buckets_order(
    pushed: list[tuple[str, int]], maximum: int, now: int
) -> None:
    clock = Clock()
    batcher = Batcher[str, int](len(pushed) + 1, maximum, clock)
    for index, (key, deadline) in enumerate(pushed):
        batcher.push(key, index, deadline)
    clock.now = now
    run: list[int] = []
    expired: list[int] = []
    while (batch := batcher.take()) is not None:
        assert len({ticket.key for ticket in batch.tickets}) <= 1
        assert len(batch.tickets) in (0, *batch_ladder(maximum))
        run += [ticket.item for ticket in batch.tickets]
        expired += [ticket.item for ticket in batch.expired]
    assert len(batcher) == 0
    assert sorted(expired) == [i for i, (_, deadline) in enumerate(pushed) if deadline <= now]
    assert sorted(run + expired) == list(range(len(pushed)))
    for key in "abc":
        of_key = [index for index in run if pushed[index][0] == key]
        assert of_key == sorted(of_key)
