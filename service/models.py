"""What is known of a loaded model, in the worker that loaded it and in the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

from ppool.metadata import ModelMetadata
from ppool.service.results import Described

__all__ = [
    "Model",
    "ModelInfo",
    "Served",
    "Serving",
    "model_files",
    "shipped_model",
]

_SHIPPED = ("pages", "pages-int8")


@dataclass(frozen=True, kw_only=True)
class Model(ModelMetadata):
    """What a file says of itself, under the name it is served by, and how it is run.

    Attributes:
        file: The file's name, without its folder.
        sha256: Of the file.
        provider: The ONNX Runtime execution provider in use.
        kernels: Of the pooling operators.
        kernels_reason: Why portable; empty when native.
        modes: Values of ``mode`` that a request may have.
        offers_scores: Whether the file gives what the mask is made of; early ones do not.
    """

    file: str
    sha256: str
    provider: str
    kernels: Literal["native", "portable"]
    kernels_reason: str
    modes: tuple[Literal["resize", "tile"], ...]
    offers_scores: bool = False

    @cached_property
    def palette(self) -> bytes:
        """Red, green and blue of every class, in the order of the class ids."""
        return b"".join(bytes(label.rgb) for label in self.classes)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """By id; one that several classes have is followed by the id."""
        names = [label.name for label in self.classes]
        often = Counter(names)
        return tuple(
            name if often[name] == 1 else f"{name} ({index})" for index, name in enumerate(names)
        )

    @property
    def why_no_probability(self) -> str:
        """Why there are no probabilities, for people; empty if there are."""
        scores = self.scores
        if scores is None:
            return (
                f"The model {self.name!r} gives labels, and nothing of how sure it is of them. "
                "Leave probability out, or adopt the network by an output before its argmax."
            )
        if not self.offers_scores:
            return (
                f"The file of the model {self.name!r} gives no scores, as those of an earlier "
                "version. Leave probability and planes out, or export or adopt it again."
            )
        if scores.values == "unknown":
            return (
                f"The values of the model {self.name!r} are neither logits nor known to be "
                "probabilities. Leave probability out."
            )
        return ""


@dataclass(frozen=True)
class Serving(Described):
    """How a model is run, and what was measured to choose that."""

    devices: tuple[str, ...]
    workers: int
    """Processes on each device."""
    threads: int
    """Inside one inference."""
    max_batch_size: int
    measured: list[dict[str, float]]
    """Images a second by workers, threads and batch; empty when the settings left nothing open."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Model):
    """A loaded model: what its file says, which file that is, and how it is run.

    `kernels` are those of the pooling operators, and `kernels_reason` says why they are portable;
    `modes` are the values of `mode` that a request may have. `card` is where the model's card is
    served, what to know before trusting it; empty if its file has none. `why_old` says why this may
    not be the newest file there is: its store did not answer, or the newest one cannot be served.
    """

    serving: Serving
    why_old: str = ""


@dataclass(frozen=True)
class Served:
    """A model in service, and the number under which the workers know it."""

    model: Model
    handle: int


def shipped_model(name: str = "pages") -> Path:
    """A model that comes with the package: ``pages``, or ``pages-int8``, the same in int8."""
    return Path(str(files("ppool.service") / "assets" / f"{name}.onnx"))


def model_files(paths: Iterable[Path]) -> list[Path]:
    """``paths`` with every folder replaced by the ONNX files in it, those by name.

    What in a folder is called so and is no file, such as a link that leads nowhere, is left out.
    ``pages`` and ``pages-int8``, where there are no such files, are the models that ship.

    Raises:
        ValueError: if there is no such file, or no ONNX file in a folder.
    """
    return [file for path in paths for file in _files(path)]


def _files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            if found := [file for file in sorted(path.glob("*.onnx")) if file.is_file()]:
                return found
            raise ValueError(f"model: expected ONNX files in the folder {str(path)!r}, got none")
        if path.is_file():
            return [path]
    except OSError as error:
        raise ValueError(f"model: cannot read {str(path)!r}: {error.strerror}") from error
    if str(path) in _SHIPPED:
        return [shipped_model(str(path))]
    raise ValueError(
        f"model: expected an ONNX file or one of {', '.join(_SHIPPED)}, got {str(path)!r}, which "
        "does not exist"
    )
