"""The service as a cluster sees it: a process behind an address."""

from collections.abc import Iterator

import pytest

from benchmarks.running import service


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A running service with the shipped model, ready."""
    with service("--workers", "1") as (_, address):
        yield address
