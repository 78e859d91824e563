"""Exported files: written whole, read with what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ppool.metadata import METADATA_KEY, ModelMetadata

__all__ = ["read_exported", "refuse_to_overwrite", "save_whole"]


def read_exported(path: Path) -> tuple[onnx.ModelProto, ModelMetadata]:
    """An exported file and its description.

    Raises:
        ValueError: if it is not one.
        OSError: if it cannot be read.
    """
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise ValueError(f"{path}: expected an ONNX file, got something else") from error
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in texts:
        raise ValueError(f"{path}: expected a file written by ppool export, got another ONNX file")
    return model, ModelMetadata.from_json(texts[METADATA_KEY])


def refuse_to_overwrite(source: Path, path: Path) -> None:
    """Check that ``path`` is not the file that it is made from.

    Raises:
        ValueError: if it is.
    """
    if path.exists() and path.samefile(source):
        raise ValueError(f"{path}: expected another file than the one to convert, got the same")


def save_whole(content: bytes, path: Path) -> None:
    """Write ``path``, and the folder it is in, so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
