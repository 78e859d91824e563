"""Where models live: a path, or a URL to fetch them from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

__all__ = ["ModelURL", "model_place"]

_SCHEMES = ("s3", "gs", "https", "oci")
_SHA256 = re.compile(r"(?:#sha256=|@sha256:)([0-9a-fA-F]{64})$")


@dataclass(frozen=True)
class ModelURL:
    """Where a model lives that has to be fetched; ``str()`` leaves out what may be secret.

    Attributes:
        parts: Without the digest.
        sha256: What the file has to have, or its manifest; empty for anything.
        of_manifest: Whether it is the manifest's: ``oci://...@sha256:...``.
    """

    parts: SplitResult = field(repr=False)
    sha256: str = ""
    of_manifest: bool = False

    @classmethod
    def parse(cls, text: str) -> ModelURL:
        """Read what a user wrote.

        Raises:
            ValueError: saying what was expected.
        """
        pin = _SHA256.search(text)
        try:
            parts = urlsplit(text[: pin.start()] if pin else text)
            parts.port  # noqa: B018 - reading it checks it
        except ValueError as error:
            raise ValueError("a URL with a host and, if at all, a number as its port") from error
        if parts.scheme not in _SCHEMES:
            schemes = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
            raise ValueError(f"a file, a folder or a URL of {schemes}")
        if not parts.hostname or not parts.path.strip("/"):
            raise ValueError("a URL with a host or bucket and a path")
        if "@" in parts.netloc:
            raise ValueError("a URL without user and password; the environment gives those")
        if parts.fragment or "@sha256:" in parts.path:
            raise ValueError("#sha256= or @sha256: at its end with 64 hexadecimal digits")
        if parts.query and parts.scheme != "https":
            raise ValueError("a URL without ?")
        if parts.path.endswith("/") and (parts.scheme not in ("s3", "gs") or pin):
            raise ValueError("the URL of a file; folders are of s3:// and gs:// and have no digest")
        of_manifest = pin is not None and parts.scheme == "oci" and pin[0][0] == "@"
        return cls(parts, pin[1].lower() if pin else "", of_manifest)

    @property
    def is_folder(self) -> bool:
        """Whether every ONNX file directly below it is meant."""
        return self.parts.path.endswith("/")

    def __str__(self) -> str:
        shown = self.parts._replace(query="..." if self.parts.query else "")
        return shown.geturl()


def model_place(given: object) -> Path | ModelURL:
    """A path, or a URL if it looks like one.

    Raises:
        ValueError: saying what was expected.
    """
    if isinstance(given, Path | ModelURL):
        return given
    if not isinstance(given, str):
        raise ValueError("a file, a folder or a URL")
    return ModelURL.parse(given) if "://" in given else Path(given)
