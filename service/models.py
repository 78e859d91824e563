"""A model file, loaded: its session, its name and what a client may know of it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from ppool.metadata import ModelMetadata
from ppool.runtime import Session, make_session

__all__ = ["Model", "load_model", "shipped_model"]


@dataclass(frozen=True)
class Model:
    """A model as served under ``name``."""

    name: str
    file: str
    sha256: str
    session: Session

    @property
    def metadata(self) -> ModelMetadata:
        """What the file says of itself."""
        return self.session.metadata

    @property
    def provider(self) -> str:
        """The ONNX Runtime execution provider in use."""
        return str(self.session.session.get_providers()[0])

    @cached_property
    def palette(self) -> bytes:
        """Red, green and blue of every class, in the order of the class ids."""
        return b"".join(bytes(label.rgb) for label in self.metadata.classes)

    def describe(self) -> dict[str, Any]:
        """The body of ``GET /models/{name}``."""
        about = asdict(self.metadata)
        return {
            "name": self.name,
            "network": about["network"],
            "classes": about["classes"],
            "stages": about["stages"],
            "input": about["input"],
            "provider": self.provider,
            "kernels": self.session.kernels,
            "kernels_reason": self.session.reason,
            "file": self.file,
            "sha256": self.sha256,
            "training": about["training"],
            "versions": about["versions"],
        }


def shipped_model() -> Path:
    """The model that comes with the package."""
    return Path(str(files("service") / "assets" / "pages.onnx"))


def load_model(path: Path, *, name: str | None = None, threads: int = 1) -> Model:
    """Load an ONNX file written by ``ppool-export``.

    Raises:
        ValueError: if there is no such file, or it cannot be served; the message says why.
    """
    if not path.is_file():
        raise ValueError(f"model: expected an ONNX file, got {str(path)!r}, which does not exist")
    try:
        session = make_session(path, intra_op_threads=threads)
    except Exception as error:  # ONNX Runtime has a dozen unrelated exception types
        raise ValueError(f"model: {str(path)!r} cannot be served: {error}") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Model(name or session.metadata.name, path.name, digest, session)
