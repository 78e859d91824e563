"""Labelled images as pairs of files, read when asked for and checked as they are read."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import scipy.io
from scipy.io.matlab import MatReadError

from ppool.metadata import LabelClass
from ppool.service.codecs.images import decode_file
from ppool.service.codecs.kinds import SUFFIXES
from ppool.training.dataset import IGNORE, Image, Sample

__all__ = [
    "FilePairs",
    "beside",
    "bit_shift_colors",
    "find_folder",
    "pictures",
    "read_mask",
    "read_names",
]

# What SciPy and NumPy raise on files that are cut off, of MATLAB 7.3, or hold something else.
_NOT_SBD = (
    IndexError,
    KeyError,
    MatReadError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    zlib.error,
)


class FilePairs:
    """A data set of image files and mask files; nothing is opened before it is asked for.

    Args:
        pairs: paths of an image and its mask. A mask is an image of one channel of 8 bits, palette
            or grey, or of 1 bit, or a ``.mat`` file of SBD.
        classes: names and colours, in mask order.
        ids: the class id, or 255, of every value that a mask file may hold.

    Raises:
        FileNotFoundError: on reading a sample one of whose files is missing.
        ValueError: on reading a file that is no picture, a mask with colours, a mask of another
            size than its image or a value that is not among ``ids``; each error names the file.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        classes: tuple[LabelClass, ...],
        ids: Mapping[int, int],
    ) -> None:
        self.pairs = tuple(pairs)
        self.classes = classes
        self._known = np.zeros(256, np.bool_)
        self._known[list(ids)] = True
        self._ids = np.full(256, IGNORE, np.uint8)
        self._ids[list(ids)] = list(ids.values())

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a sample may be read from."""
        return tuple(path for pair in self.pairs for path in pair)

    def check_files(self) -> None:
        """Look whether they are all there, without opening any.

        Raises:
            FileNotFoundError: if one is missing.
        """
        for path in self.files:
            if not path.is_file():
                raise _missing(path)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.pairs[index]
        image = _image(image_path)
        values = _sbd_mask(mask_path) if mask_path.suffix == ".mat" else read_mask(mask_path)
        if values.shape != image.shape[:2]:
            raise ValueError(
                f"{mask_path}: expected {image.shape[1]} x {image.shape[0]} pixels as "
                f"{image_path.name} has, got {values.shape[1]} x {values.shape[0]}; restore both "
                "from the data set's archive"
            )
        if not self._known[values].all():
            wrong = np.unique(values[~self._known[values]]).tolist()
            raise ValueError(
                f"{mask_path}: expected values {_ranges(np.flatnonzero(self._known))}, got "
                f"{wrong[:8]!r}; is it a mask of another data set, or one already converted?"
            )
        return Sample(image, self._ids[values], image_path)


def read_names(path: Path, cure: str) -> list[str]:
    """The image names in a list file, one a line.

    Raises:
        FileNotFoundError: if it is missing, with ``cure``.
        ValueError: if it names nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; {cure}")
    names = path.read_text("utf-8").split()
    if not names:
        raise ValueError(f"{path}: expected image names, got an empty file; {cure}")
    return names


def find_folder(root: Path, names: Sequence[str], inside: str) -> Path:
    """``root`` itself if it holds ``inside``, a pattern, else the first of ``names`` in it."""
    if any(root.glob(inside)):
        return root
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def pictures(folder: Path, cure: str) -> list[Path]:
    """The image files of a folder, by name.

    Raises:
        FileNotFoundError: if there are none, with ``cure``.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise FileNotFoundError(f"{folder}: expected images, found none; {cure}")
    return found


def beside(folder: Path, stem: str, cure: str) -> Path:
    """The image file of that name, whatever its type.

    Raises:
        FileNotFoundError: if there is none, with ``cure``.
    """
    for suffix in sorted(SUFFIXES):
        for path in (folder / f"{stem}{suffix}", folder / f"{stem}{suffix.upper()}"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"{folder / stem}.png: missing; {cure}")


def bit_shift_colors(count: int) -> list[str]:
    """PASCAL VOC's palette as ``#rrggbb``: an index's bits dealt to red, green and blue in turn.

    Source: the VOC development kit's colour map (bit 0 to red's highest bit, 1 to green's, 2 to
    blue's, 3 to red's second and so on).
    """
    colors = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colors.append("#" + bytes(channels).hex())
    return colors


def _image(path: Path) -> Image:
    """The upright photo, as the service decodes it."""
    try:
        return decode_file(path).image
    except FileNotFoundError as error:
        raise _missing(path) from error
    except ValueError as error:
        raise ValueError(
            f"{path}: not a readable image; restore it from the data set's archive "
            f"({error.__cause__})"
        ) from error


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"{path}: missing; unpack the data set's archive again or correct the list that names it"
    )


def _opened(path: Path) -> PIL.Image.Image:
    try:
        with PIL.Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken PNG is SyntaxError
        raise ValueError(
            f"{path}: not a readable image; restore it from the data set's archive"
        ) from error


def read_mask(path: Path) -> Image:
    """The values of a mask file, uint8 [H, W]: of one bit 0 and 1, of a palette its indices.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is no image of one channel of up to 8 bits.
    """
    mask = _opened(path)
    if mask.mode == "1":
        return np.asarray(mask).astype(np.uint8)
    if mask.mode not in {"P", "L"}:
        raise ValueError(
            f"{path}: expected one 8-bit channel of class numbers (mode P or L), got mode "
            f"{mask.mode!r}; colours are not labels, so restore the mask from the archive"
        )
    # Never `convert`: of a palette image it would return colours, not indices.
    return np.asarray(mask)


def _sbd_mask(path: Path) -> Image:
    """The ``Segmentation`` field of an SBD ``.mat`` file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; unpack SBD's benchmark.tgz again")
    try:
        mask = scipy.io.loadmat(path)["GTcls"]["Segmentation"][0, 0]
    except _NOT_SBD as error:
        raise _no_sbd_mask(path, type(error).__name__) from error
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise _no_sbd_mask(path, f"{mask.dtype} of shape {mask.shape}")
    return np.asarray(mask)


def _no_sbd_mask(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected GTcls.Segmentation, uint8 [H, W], got {found}; unpack SBD's "
        "benchmark.tgz again"
    )


def _ranges(values: np.ndarray) -> str:
    """Sorted numbers in words: ``0 to 20, 255``."""
    parts = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 1 else f"{p[0]}" for p in parts)
