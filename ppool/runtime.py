"""ONNX Runtime sessions on exported models: native kernels if they load, else portable ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

# ONNX Runtime 1.31 reports usage to its maker unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime import RunOptions

from ppool._library import custom_ops_library
from ppool.metadata import METADATA_KEY, ModelMetadata

__all__ = [
    "ALPHA_SWITCH",
    "LOGITS",
    "LOGITS_SWITCH",
    "MASK_SIZE",
    "RunOptions",
    "Session",
    "make_session",
]

# Optional bool input of exported models. ONNX Runtime executes every node of a graph whatever is
# fetched (RunOptions.only_execute_path_to_fetches acts in training builds only), so the alpha maps
# stand behind an If on this input.
ALPHA_SWITCH = "alpha_wanted"
# The same for the output ``logits``, float32 [N, K, h, w].
LOGITS, LOGITS_SWITCH = "logits", "logits_wanted"
# Optional int64 [2] input of models that take images of one size: the mask's height and width,
# which all their images are to have in common; as high and wide as the image where it is 0, 0.
MASK_SIZE = "mask_size"
# Resized by portable kernels, which hold them all at a time: 0.3 GB.
MOST_SCORES = 2**26

_logger = logging.getLogger("ppool")

# The same for a process that loaded ONNX Runtime before this module.
if os.environ["ORT_DISABLE_TELEMETRY"] == "1":
    ort.disable_telemetry_events()


@dataclass(frozen=True)
class Session:
    """A loaded model and how it runs.

    Attributes:
        session: The ONNX Runtime session; safe to call from several threads.
        kernels: ``native`` with the custom-op library, ``portable`` with the function bodies
            inside the model file.
        reason: Why ``portable``; empty when ``native``.
        metadata: What the model file says of itself.
    """

    session: ort.InferenceSession
    kernels: Literal["native", "portable"]
    reason: str
    metadata: ModelMetadata

    @property
    def offers_logits(self) -> bool:
        """Whether ``logits`` can be asked for; files of earlier versions have none."""
        return any(entry.name == LOGITS for entry in self.session.get_outputs())

    @property
    def offers_tiles(self) -> bool:
        """Whether those of overlapping windows can be blended."""
        scores = self.metadata.scores
        return self.offers_logits and scores is not None and scores.on_grid

    @property
    def threads(self) -> int:
        """Inside one operator; 0 is one for each core."""
        return int(self.session.get_session_options().intra_op_num_threads)

    @cached_property
    def _optional(self) -> frozenset[str]:
        """Inputs that need not be fed."""
        return frozenset(entry.name for entry in self.session.get_overridable_initializers())

    def sized(self, height: int, width: int) -> dict[str, NDArray[np.int64]]:
        """What to feed for masks of that size, made of scores, not of labels.

        Nothing where the model does not offer it, or portable kernels would take too much memory:
        masks are as high and wide as the image then.
        """
        most = len(self.metadata.classes) * height * width
        if MASK_SIZE not in self._optional or (self.kernels == "portable" and most > MOST_SCORES):
            return {}
        return {MASK_SIZE: np.array((height, width), np.int64)}

    def run(
        self,
        outputs: Sequence[str],
        feeds: Mapping[str, NDArray[Any]],
        *,
        options: RunOptions | None = None,
    ) -> list[NDArray[Any]]:
        """Compute the named outputs; alpha maps and logits are not unless they are among them.

        A network that only takes one image at a time is run once for each.

        Args:
            outputs: Names such as ``mask`` or ``alpha/pool1``, in the order wanted.
            feeds: ``image``, uint8 [N, H, W, 3] RGB; besides, what :meth:`sized` says.
            options: Whoever holds them can end the run, by ``terminate``.
        """
        options = options or RunOptions()
        feeds = dict(feeds)
        wanted = {
            ALPHA_SWITCH: any(stage.output in outputs for stage in self.metadata.stages),
            LOGITS_SWITCH: LOGITS in outputs,
        }
        for name in self._optional & wanted.keys():
            feeds[name] = np.array(wanted[name])
        images = feeds["image"]
        if len(images) > 1 and self.session.get_inputs()[0].shape[0] == 1:
            singles = [
                self.session.run(list(outputs), feeds | {"image": i[None]}, options) for i in images
            ]
            return [np.concatenate(arrays) for arrays in zip(*singles, strict=True)]
        results: list[NDArray[Any]] = self.session.run(list(outputs), feeds, options)
        return results

    def release(self, images: NDArray[np.uint8]) -> None:
        """Give the memory that is left of earlier runs back to the system.

        Args:
            images: Such as :meth:`run` takes; they are not run.
        """
        # A run gives it back at its end, and one that is ended before its first operator does, too.
        options = RunOptions()
        options.terminate = True
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with suppress(Exception):  # that it was ended
            self.run(("mask",), {"image": images}, options=options)


def make_session(
    model: str | Path | bytes,
    *,
    providers: Sequence[str] | None = None,
    intra_op_threads: int = 1,
    spin: bool = False,
    use_native: bool = True,
    quiet: bool = False,
) -> Session:
    """Load a model written by ``ppool export``.

    Where the native library is missing or refuses the model, the portable function bodies run
    instead, and the log (logger ``ppool``) says so once.

    Args:
        model: Path of the ONNX file, or its content.
        providers: ONNX Runtime execution providers, best first; ``None`` is the CPU.
        intra_op_threads: Threads inside one operator; 0 is one for each core.
        spin: Let idle threads spin instead of sleep: a little faster alone, a lot slower when
            sessions share cores.
        use_native: ``False`` runs the portable bodies even where the library is present.
        quiet: Keep ONNX Runtime from printing the errors that it raises.

    Raises:
        ValueError: if ONNX Runtime cannot load the model, or it has no ppool description; export
            it with ``ppool export``, or adopt it.
    """
    library = custom_ops_library() if use_native else None
    reason = "" if library else "the native library is not there" if use_native else "as asked"
    load = partial(_load, model, providers, intra_op_threads, spin, quiet)
    session, detail = None, ""
    if library is not None:
        try:
            session = load(library)
        except Exception as error:  # noqa: BLE001 (ONNX Runtime's errors share no base class)
            reason, detail = "the native library refused the model", str(error)
    if session is None:
        try:
            session = load(None)
        except Exception as error:
            raise ValueError(f"model: ONNX Runtime cannot load it: {error}") from error
        if library is not None:
            _log_once(f"{reason}: {detail}")
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ValueError(
            f"model: expected metadata {METADATA_KEY!r}, got a file without; export it with "
            "ppool export, or wrap a network exported by others with ppool adopt"
        )
    return Session(
        session, "portable" if reason else "native", reason, ModelMetadata.from_json(text)
    )


def _load(
    model: str | Path | bytes,
    providers: Sequence[str] | None,
    intra_op_threads: int,
    spin: bool,
    quiet: bool,
    library: str | None,
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    _share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Below errors ONNX Runtime only warns that ALPHA_SWITCH is not a constant, which is its point.
    options.log_severity_level = 4 if quiet else 3
    if library is not None:
        options.register_custom_ops_library(library)
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=providers or ["CPUExecutionProvider"])


@cache
def _share_memory() -> None:
    """Let all sessions of this process take their tensors from one arena.

    An arena keeps what its largest run needed, so one for each session adds up.
    """
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    # Some versions refuse it where the program has registered one before; then that is the one.
    with suppress(Exception):
        ort.create_and_register_allocator(memory, None)


@cache
def _log_once(reason: str) -> None:
    _logger.warning("pooling runs on portable kernels: %s", reason)
