"""``ppool train`` as people mistype it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ppool.__main__ import run


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["evaluation", "{folder}"], "{folder}: Is a directory"),
        (["evaluation", "{file}"], "{file}: not a checkpoint written by ppool train"),
        (["run", "-o", "{folder}", "--recipe", "page"], "expected pages, paper or a file"),
        (["run", "-o", "{folder}", "--network", "vgg"], "network: expected one of"),
        (["compare", "--data", "{folder}", "-o", "x", "--pooling", "median"], "got 'median'"),
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


def test_a_missing_extra_is_one_line_that_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; from ppool.training.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: ppool train needs torch: pip install 'ppool[train]'\n"
