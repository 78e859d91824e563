"""The ladder of padded shapes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ppool.feeding import feed
from ppool.metadata import InputPolicy
from tests.service.harness import photo

policies = st.builds(
    lambda multiple, times: InputPolicy(max_side=multiple * times + times % 7, multiple=multiple),
    st.integers(1, 64),
    st.integers(1, 60),
)


@given(policies, st.data())
def test_a_side_grows_to_a_multiple_by_less_than_a_quarter_and_one(
    policy: InputPolicy, data: st.DataObject
) -> None:
    side = data.draw(st.integers(1, policy.max_side))
    padded = policy.rung(side)
    assert padded % policy.multiple == 0
    assert side <= padded <= side * 1.25 + policy.multiple


@given(policies)
def test_rungs_stay_put_grow_and_are_few(policy: InputPolicy) -> None:
    padded = [policy.rung(side) for side in range(1, policy.max_side + 1)]
    assert padded == sorted(padded)
    rungs = sorted(set(padded))
    assert [policy.rung(min(rung, policy.max_side)) for rung in rungs] == rungs
    octaves = (policy.max_side / policy.multiple + 1) * 2
    assert len(rungs) <= 4 * np.log2(octaves) + 2 + max(policy.max_side - 1024, 0) / 32
    large = np.arange(1025, policy.max_side + 1)
    assert all(np.array(padded[1024:]) - large <= 64 + policy.multiple)


def test_padding_repeats_the_last_row_and_column() -> None:
    image = photo(21, 37)
    fed = feed(image, InputPolicy(max_side=128, multiple=16), (37, 21))
    expected = np.pad(image, ((0, 11), (0, 11), (0, 0)), "edge")
    np.testing.assert_array_equal(fed.image, expected)
    np.testing.assert_array_equal(fed.mask(expected[:, :, 0]), image[:, :, 0])


def test_what_stands_on_a_rung_is_not_copied() -> None:
    image = photo(32, 16)
    assert feed(image, InputPolicy(max_side=128, multiple=16), (32, 16)).image is image
