"""What every peer does with one photo, the usual way, in one place so that all do the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255

MODEL = Path(os.environ.get("PEER_MODEL", ""))
SIDE = int(os.environ.get("PEER_SIDE", "256"))
THREADS = int(os.environ.get("PEER_THREADS", "1"))
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))
PORT = int(os.environ.get("PEER_PORT", "8000"))
MAX_BATCH_SIZE = 8
MAX_DELAY_MILLISECONDS = 5


def session() -> ort.InferenceSession:
    """ONNX Runtime with ``PEER_THREADS`` threads inside one inference."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    return ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def decode(photo: bytes) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """A JPEG as normalised float32 [3, SIDE, SIDE], and its own height and width.

    Pillow takes every pixel into account where a photo gets smaller, as networks are trained and as
    ppool does; OpenCV's bilinear skips some, which is another mask.
    """
    pixels = np.frombuffer(photo, np.uint8)
    rgb: NDArray[Any] = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)  # type: ignore[assignment]
    height, width = rgb.shape[:2]
    small = Image.fromarray(rgb).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    x = (np.asarray(small, np.float32) - MEAN) / STD
    return np.ascontiguousarray(x.transpose(2, 0, 1)), (height, width)


def infer(model: ort.InferenceSession, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 [N, 3, SIDE, SIDE] to class ids uint8 [N, SIDE, SIDE]."""
    logits = model.run(None, {"image": batch})[0]
    labels: NDArray[np.uint8] = logits.argmax(1).astype(np.uint8)
    return labels


def encode(labels: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    """Class ids as a grey PNG of the photo's own size."""
    height, width = size
    mask = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return cv2.imencode(".png", mask)[1].tobytes()


def segment(model: ort.InferenceSession, photo: bytes) -> bytes:
    """All of it, for one photo."""
    x, size = decode(photo)
    return encode(infer(model, x[None])[0], size)
