"""Finds the native library and runs jobs on the CPU; knows addresses, not tensors."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ppool._jobs import Job, as_struct, check_sizes

__all__ = ["LibraryInfo", "custom_ops_library", "entry", "library_info", "run", "runs_jobs"]

LIBRARY_VARIABLE = "PPOOL_LIBRARY"

# The enum Status of native/ppool_params.h.
STATUS = {1: "an argument is out of range", 2: "out of memory"}

logger = logging.getLogger("ppool")


@dataclass(frozen=True)
class LibraryInfo:
    """Version of the native library and the instruction set it uses on this processor."""

    version: str
    instruction_set: str


@cache
def custom_ops_library() -> str | None:
    """Absolute path of the native library, for ``SessionOptions.register_custom_ops_library``.

    The environment variable ``PPOOL_LIBRARY`` names another file; set but empty, it turns the
    native library off. The answer is found once and kept.

    Returns:
        The path, or None if the library was not built; that is logged once as a warning.

    Raises:
        ValueError: if ``PPOOL_LIBRARY`` names no file.
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        chosen = Path(override)
        if not chosen.is_file():
            raise ValueError(
                f"{LIBRARY_VARIABLE}: expected the path of the native library, got {override!r}; "
                f"unset it to use the one built with the package"
            )
        return str(chosen.resolve())
    built = sorted(Path(__file__).resolve().parent.glob("_native*"))
    if override is None and built:
        return str(built[0])
    logger.warning(
        "the native library is %s: pooling uses the slower portable path",
        "not built (install a C++17 compiler and reinstall ppool)"
        if override is None
        else f"turned off by {LIBRARY_VARIABLE}",
    )
    return None


@cache
def _entries() -> ctypes.CDLL | None:
    """The C entries, or None where there are none that mean our jobs; that is logged once."""
    path = custom_ops_library()
    if path is None:
        return None
    library = ctypes.CDLL(path)
    try:
        check_sizes(library, path)
    except OSError as error:
        logger.warning("%s; until then PyTorch pools by the slower portable path", error)
        return None
    library.ppool_version.restype = ctypes.c_char_p
    library.ppool_instruction_set.restype = ctypes.c_char_p
    return library


def runs_jobs() -> bool:
    """Whether :func:`run` has a library to run them."""
    return custom_ops_library() is not None and _entries() is not None


def library_info() -> LibraryInfo | None:
    """What the native library says of itself, or None without one."""
    library = _entries()
    if library is None:
        return None
    version: bytes = library.ppool_version()
    instruction_set: bytes = library.ppool_instruction_set()
    return LibraryInfo(version.decode(), instruction_set.decode())


def entry(name: str) -> Callable[..., int] | None:
    """The C entry ``ppool_<name>``, or None where there is no library that has it."""
    found: Callable[..., int] | None = getattr(_entries(), f"ppool_{name}", None)
    return found


def run(job: Job, threads: int) -> None:
    """Do a job on the CPU, with at most so many threads.

    Raises:
        ValueError: if the element type is unknown.
        RuntimeError: if there is no native library or it reports an error.
    """
    library = _entries()
    if library is None:
        raise RuntimeError(
            "the native library is not built; install a C++17 compiler and reinstall ppool"
        )
    struct = as_struct(job)
    status: int = getattr(library, f"ppool_{job.name}")(ctypes.byref(struct), threads)
    if status:
        reason = STATUS.get(status, f"status {status}")
        raise RuntimeError(f"native pooling failed: {reason} in {job!r}")
