"""Fixtures every test may use."""

import numpy as np
import pytest
from hypothesis import settings

# Tests never time anything: a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20190616)
