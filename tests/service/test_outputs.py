"""Files whose outputs are not what they say: refused before anybody gets a mask of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ppool.service.workers.inference import load_segmenter
from tests.service.harness import ODD_MASKS, ODD_STAGES, odd_model, tiny_model


@pytest.fixture
def verify(tmp_path: Path) -> Callable[[bytes], None]:
    def load_and_verify(content: bytes) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        load_segmenter(path).verify(64, 64)

    return load_and_verify


@pytest.mark.parametrize("kind", [*ODD_MASKS, *ODD_STAGES])
def test_a_file_that_does_not_do_what_it_says_is_refused(
    verify: Callable[[bytes], None], kind: str
) -> None:
    with pytest.raises(ValueError, match=r"model\.onnx.*(mask|pool[13])"):
        verify(odd_model(kind))


def test_a_file_that_does_is_not(verify: Callable[[bytes], None]) -> None:
    verify(tiny_model())
