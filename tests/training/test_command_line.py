"""``ppool train`` as people mistype it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ppool.__main__ import run
from ppool.training.cli import given_options
from ppool.training.datasets import DATASETS


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["evaluation", "{folder}"], "{folder}: Is a directory"),
        (["evaluation", "{file}"], "{file}: not a checkpoint written by ppool train"),
        (
            ["run", "--recipe", "own", "-o", "{folder}", "--network", "vgg"],
            "network: expected one of",
        ),
        (
            ["compare", "--recipe", "own", "--data", "{folder}", "-o", "x", "--pooling", "median"],
            "got 'median'",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_1(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"folder": str(tmp_path / "[a]"), "file": str(tmp_path / "empty.pt")}
    (tmp_path / "[a]").mkdir()
    (tmp_path / "empty.pt").touch()
    words = [word.format(**names) for word in arguments]
    with pytest.raises(SystemExit) as ended:
        run(["train", *words])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert complaint.format(**names) in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["run", "-o", "x", "--recipe", "page"],
            "expected own, pages, photographs, paper, author or a file",
        ),
        (["run", "-o", "x"], "--recipe: expected one, or --data with own photos"),
        (
            ["run", "--recipe", "own", "-o", "x", "stray"],
            "options: expected --NAME VALUE, got 'stray'",
        ),
        (["run", "--recipe", "own", "-o", "x", "--seed"], "--seed: expected a value"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(DATASETS, "pages", raising=False)  # research adds it
    with pytest.raises(SystemExit) as ended:
        run(["train", *arguments])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_every_setting_is_an_option() -> None:
    words = ["--learning-rate", "1e-3", "--pooling=max", "--set", "seed=3"]
    assert given_options(words) == [
        ("learning_rate", "1e-3"),
        ("pooling", "max"),
        ("set", "seed=3"),
    ]


def test_a_missing_extra_is_one_line_that_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; from ppool.training.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: ppool train needs torch: pip install 'ppool[train]'\n"
