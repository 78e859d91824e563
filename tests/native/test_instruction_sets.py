"""The kernels of the lesser instruction sets, which this processor would not choose itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ppool._library import library_info
from tests.native.entries import needs_library

pytestmark = needs_library

TESTS = (
    "tests/native/test_native_pooling.py",
    "tests/native/test_resize_pixels.py",
    "tests/ppool/test_unit.py",
)
LESSER = {"avx512": {"avx2", "portable"}, "avx2": {"portable"}, "neon": {"portable"}}
CHOSEN = (
    "forward_equals or backward_equals or 1e_5 or never_change or float32_gradients or of_pillow"
)


@pytest.mark.parametrize("name", ["portable", "avx2"])
def test_a_lesser_instruction_set_gives_the_same_answers(name: str) -> None:
    info = library_info()
    assert info is not None
    if name not in LESSER.get(info.instruction_set, ()):
        pytest.skip(f"the processor has {info.instruction_set} at most, or PPOOL_ISA is set")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-k", CHOSEN, *TESTS]
    run = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PPOOL_ISA": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_the_variable_chooses_the_instruction_set() -> None:
    ask = "from ppool._library import library_info; print(library_info().instruction_set)"
    run = subprocess.run(
        [sys.executable, "-c", ask],
        env={**os.environ, "PPOOL_ISA": "portable"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "portable"
