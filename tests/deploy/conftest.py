"""The service as a cluster sees it: a process behind an address."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A running service with the shipped model, ready."""
    with subprocess.Popen(
        [sys.executable, "-m", "service", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PPOOL_WORKERS": "1"},
        cwd=ROOT,
    ) as process:
        assert process.stderr is not None
        found = ""
        try:
            for line in process.stderr:
                if listening := re.search(r"http://127\.0\.0\.1:\d+", line):
                    found = listening[0]
                if "ready after" in line:
                    break
            assert found, "the service did not say where it listens"
            yield found
        finally:
            process.terminate()
            process.communicate(timeout=60)
