"""Finding the native library, and what it says of itself."""

import logging
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from ppool import _jobs, _library, ppool2d
from ppool.window import Window
from tests.native.entries import forward, needs_library, stored

pytestmark = needs_library


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Forget what was found, before and after."""
    caches = (_library.custom_ops_library, _library._entries)
    for cached in caches:
        cached.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def test_the_path_is_absolute_and_exists() -> None:
    path = _library.custom_ops_library()
    assert path is not None
    assert Path(path).is_absolute()
    assert Path(path).is_file()


def test_the_library_was_built_from_this_version() -> None:
    info = _library.library_info()
    assert info is not None
    assert info.version == version("ppool")
    assert info.instruction_set in {"avx512", "avx2", "neon", "portable"}


def test_the_environment_variable_names_another_library(
    fresh: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = _library.custom_ops_library()
    assert original is not None
    copy = tmp_path / "elsewhere.so"
    shutil.copy(original, copy)
    _library.custom_ops_library.cache_clear()
    fresh.setenv("PPOOL_LIBRARY", str(copy))
    assert _library.custom_ops_library() == str(copy.resolve())


def test_a_named_library_that_is_not_there_is_an_error(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("PPOOL_LIBRARY", "no/such/library.so")
    with pytest.raises(ValueError, match=r"PPOOL_LIBRARY: expected .* got 'no/such/library.so'"):
        _library.custom_ops_library()


def test_without_a_library_it_warns_once_and_calls_are_refused(
    fresh: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fresh.setenv("PPOOL_LIBRARY", "")
    with caplog.at_level(logging.WARNING, "ppool"):
        assert _library.custom_ops_library() is None
        assert _library.custom_ops_library() is None
        assert _library.library_info() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "portable" in caplog.text
    x = stored(np.ones((1, 1, 2, 2)), "float32")
    with pytest.raises(RuntimeError, match="install a C\\+\\+17 compiler"):
        forward(x, x[..., :1, :1].copy(), Window.of(2))


def test_a_library_of_another_version_is_named_and_not_called(
    fresh: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fresh.setattr(_jobs, "_STRUCTS", dict.fromkeys(_jobs.JOBS, _jobs._SideBranch))
    with caplog.at_level(logging.WARNING, "ppool"):
        assert not _library.runs_jobs()
    assert "built from another version of ppool; build it again" in caplog.text
    pooled = ppool2d(torch.ones(1, 1, 2, 2), 2.0, 2)
    assert pooled.item() == 1


def test_a_refused_call_says_what_was_wrong() -> None:
    x = stored(np.ones((1, 1, 2, 2)), "float32")
    with pytest.raises(RuntimeError, match=r"out of range in .*kernel=\(3, 3\)"):
        forward(x, x, Window.of(3))


def test_an_unknown_element_type_is_an_error() -> None:
    x = np.ones((1, 1, 2, 2), np.int32)
    with pytest.raises(ValueError, match=r"dtype: expected one of .* got 'int32'"):
        forward(x, x, Window.of(2))
