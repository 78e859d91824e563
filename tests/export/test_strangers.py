"""Odd files of others, kept in ``cases/``: adopted, they answer as their own bytes do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from ppool.export._adopt_cli import app
from ppool.runtime import make_session

CASES = Path(__file__).parent / "cases"
PHOTO = Path(__file__).parents[2] / "service" / "playground" / "notes.jpg"
IMAGENET = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
ONE_AT_A_TIME = "one photo at a time"

Array = NDArray[Any]


def imagenet(image: Array) -> Array:
    x = image / 255 - np.array((0.485, 0.456, 0.406))
    x = x / np.array((0.229, 0.224, 0.225))
    return x.transpose(2, 0, 1)[None].astype(np.float32)


def bgr_bytes(image: Array) -> Array:
    return image[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)


def bytes_last(image: Array) -> Array:
    return image[None]


def largest(output: Array, size: tuple[int, int]) -> Array:
    fine = torch.nn.functional.interpolate(torch.from_numpy(output), size, mode="bilinear")
    return fine.argmax(1).numpy()


def channels_last(output: Array, size: tuple[int, int]) -> Array:
    return largest(np.ascontiguousarray(output.transpose(0, 3, 1, 2)), size)


def positive(output: Array, size: tuple[int, int]) -> Array:
    fine = torch.nn.functional.interpolate(torch.from_numpy(output), size, mode="bilinear")
    return (fine[:, 0] > 0).numpy()


def as_they_are(output: Array, size: tuple[int, int]) -> Array:
    assert output.shape[1:] == size
    return output


Case = tuple[str, list[str], Callable[[Array], Array], Callable[[Array, tuple[int, int]], Array]]
CASES_AND_ANSWERS: list[Case] = [
    ("up9_linear", IMAGENET, imagenet, largest),
    ("rs10_linear", IMAGENET, imagenet, largest),
    ("onechannel_logit", IMAGENET, imagenet, positive),
    ("argmax_i64", IMAGENET, imagenet, as_they_are),
    ("nhwc_out", IMAGENET, imagenet, channels_last),
    ("dim_minus1", IMAGENET, imagenet, largest),
    ("se_batch1", IMAGENET, imagenet, largest),
    ("h_in_noshape", IMAGENET, imagenet, largest),
    ("dynq_h_plain", IMAGENET, imagenet, largest),
    ("h_bgr255", ["--preset", "raw", "--channels", "bgr"], bgr_bytes, largest),
    ("h_u8_input", ["--preset", "raw"], bytes_last, largest),
    ("h_plain", IMAGENET, imagenet, largest),
]


@pytest.mark.parametrize(("name", "options", "feed", "read"), CASES_AND_ANSWERS)
def test_an_adopted_network_answers_as_its_own_bytes_do(
    name: str,
    options: list[str],
    feed: Callable[[Array], Array],
    read: Callable[[Array, tuple[int, int]], Array],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, path = CASES / f"{name}.onnx", tmp_path / "adopted.onnx"
    result = CliRunner().invoke(app, ["adopt", str(source), "-o", str(path), *options])
    assert result.exit_code == 0, result.output
    assert (ONE_AT_A_TIME in result.output) is (name in {"se_batch1", "dynq_h_plain"})
    assert capfd.readouterr().err == ""  # where ONNX Runtime prints in red
    with Image.open(PHOTO) as photo:
        piece = np.asarray(photo.crop((100, 100, 260, 164)))
    noise = np.random.default_rng(6).integers(0, 256, piece.shape, np.uint8)
    images = np.stack((piece, piece[:, ::-1] // 2, noise))
    original = onnxruntime.InferenceSession(source)
    given = original.get_inputs()[0].name
    truth = [read(original.run(None, {given: feed(i)})[0], images.shape[1:3]) for i in images]
    (masks,) = make_session(path).run(["mask"], {"image": images})
    assert len(np.unique(truth)) > 1
    assert np.mean(masks != np.concatenate(truth)) <= (1e-3 if name == "dynq_h_plain" else 1e-4)


@pytest.mark.parametrize("given", ["a file", "standard input"])
def test_a_list_of_classes_may_come_from_windows(given: str, tmp_path: Path) -> None:
    path, names = tmp_path / "adopted.onnx", CASES / "bom.txt"
    command = ["adopt", str(CASES / "nhwc_out.onnx"), "-o", str(path), *IMAGENET]
    command += ["--classes", str(names) if given == "a file" else "-"]
    result = CliRunner().invoke(app, command, input=names.read_bytes())
    assert result.exit_code == 0, result.output
    assert [entry.name for entry in make_session(path).metadata.classes] == ["road", "pole", "sky"]


def test_a_list_of_classes_has_any_length(tmp_path: Path) -> None:
    names = ",".join(f"a class with quite a long name {index}" for index in range(200))
    command = ["adopt", str(CASES / "nhwc_out.onnx"), "-o", str(tmp_path / "x"), *IMAGENET]
    result = CliRunner().invoke(app, [*command, "--classes", names])
    assert result.exit_code == 1
    assert "--classes: expected 3, as many as the network has logits, got 200" in result.output


def test_one_channel_is_told_from_many_classes(tmp_path: Path) -> None:
    command = ["adopt", str(CASES / "onechannel_logit.onnx"), "-o", str(tmp_path / "x"), *IMAGENET]
    result = CliRunner().invoke(app, [*command, "--classes", "road,pole,sky"])
    assert result.exit_code == 1
    assert "the network has one channel, and a pixel is foreground above 0" in result.output
    result = CliRunner().invoke(app, [*command, "--classes", "ink"])
    assert result.exit_code == 0, result.output
    about = make_session(tmp_path / "x").metadata
    assert (about.head, [entry.name for entry in about.classes]) == (
        "threshold",
        ["background", "ink"],
    )
