"""``ppool export`` as people type it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from typer.testing import CliRunner

from ppool.export import _export
from ppool.export._cli import app
from ppool.export._files import save_whole
from ppool.export._verify import Comparison, VerificationError
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model
from ppool.runtime import make_session


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    pooling = {"pool1": "ppool", "pool2": "max", "pool3": "max", "pool4": "average"}
    path = tmp_path_factory.mktemp("checkpoint") / "trained.pt"
    Checkpoint(
        network="unet_small",
        pooling=pooling,
        classes=(LabelClass(0, "paper", "#f5f2e8"), LabelClass(1, "ink", "#1b4f72")),
        input=InputPolicy(max_side=640, multiple=32),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        state_dict=create_model("unet_small", pooling=pooling, num_classes=2).state_dict(),
        training={"data": "drawn pages", "seed": 3},
    ).save(path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    path = checkpoint.with_name("pages.onnx")
    card = checkpoint.with_name("card.md")
    card.write_text("# Pages\n\nFor tests — of nothing else.\n", "utf-8")
    options = ["--max-side", "512", "--card", str(card), "--ink", "ink"]
    result = CliRunner().invoke(app, ["export", str(checkpoint), "-o", str(path), *options])
    assert result.exit_code == 0, result.output
    assert "2 classes, 1 alpha maps" in result.output
    assert "agrees with PyTorch" in result.output
    return path


def test_a_checkpoint_becomes_a_model_that_serves(exported: Path) -> None:
    description = make_session(exported).metadata
    assert (description.name, description.network) == ("pages", "unet_small")
    assert description.input == InputPolicy(max_side=512, multiple=32)
    assert description.training == {"data": "drawn pages", "seed": 3}
    assert description.card == "# Pages\n\nFor tests — of nothing else.\n"
    assert [stage.output for stage in description.stages] == ["alpha/pool1"]


def test_info_prints_what_is_inside(exported: Path) -> None:
    result = CliRunner().invoke(app, ["info", str(exported)])
    assert result.exit_code == 0
    for expected in (
        "unet_small",
        "image: uint8",
        "mask: uint8",
        "512 pixels",
        "1 x ai.ppool.PPoolUnit",
        "onnx 20, ai.ppool 1",
        "drawn pages",
        "# Pages",
        "ink",
        "#1b4f72",
        "alpha/pool1",
        "sha256",
    ):
        assert expected in result.output


def test_info_refuses_an_onnx_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), path)
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 1
    assert "expected a file written by ppool export" in result.stderr


@pytest.mark.parametrize("arguments", [["info"], ["export", "-o", "model.onnx"]])
def test_a_file_of_another_kind_is_one_line_and_status_1(
    arguments: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no checkpoint, no model")
    if "-o" in arguments:
        arguments = ["export", "-o", str(tmp_path / "model.onnx")]
    result = CliRunner().invoke(app, [*arguments, str(path)])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "notes.txt" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_checkpoint_is_never_written_over(checkpoint: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(checkpoint), "-o", str(checkpoint)])
    assert result.exit_code == 1
    assert "trained.pt: expected another file than the one to convert" in result.stderr
    assert Checkpoint.load(checkpoint).network == "unet_small"


def test_a_file_appears_whole_in_a_new_folder_or_not_at_all(tmp_path: Path) -> None:
    save_whole(b"model", tmp_path / "new" / "model.onnx")
    assert (tmp_path / "new" / "model.onnx").read_bytes() == b"model"
    with pytest.raises(IsADirectoryError):
        save_whole(b"model", tmp_path / "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]


def test_a_missing_file_is_named() -> None:
    result = CliRunner().invoke(app, ["export", "missing.pt", "-o", "model.onnx"])
    assert result.exit_code == 2
    assert "missing.pt" in result.stderr


def test_a_disagreement_is_a_table_and_status_1(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disagree(*_: object) -> None:
        raise VerificationError([Comparison("portable", (1, 64, 64, 3), "mask", 700, 1)])

    monkeypatch.setattr(_export, "verify", disagree)
    result = CliRunner().invoke(
        app, ["export", str(checkpoint), "-o", str(tmp_path / "model.onnx")]
    )
    assert result.exit_code == 1
    assert "portable" in result.stdout
    assert "700" in result.stdout
    assert "1 of 1 comparisons with PyTorch fail" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["torch", "onnx", "typer"])
def test_a_missing_extra_is_one_line_that_says_what_to_install(
    missing: str, checkpoint: Path
) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = "
        f"[{str(checkpoint)!r}, '-o', 'model.onnx']; from ppool.export.__main__ import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == f"error: ppool export needs {missing}: pip install 'ppool[export]'\n"
