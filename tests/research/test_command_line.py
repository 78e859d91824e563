"""``python -m research`` as people mistype it."""

import sys
from pathlib import Path

import pytest

from research.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["figure", "5", "{folder}"], "{folder}: Is a directory"),
        (["fineshapes", "{file}", "--layout", "voc", "--count", "5"], "{file}/"),
        (["run", "-o", "{folder}"], "--data: expected the folder that `research pages` wrote"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"folder": str(tmp_path / "[a]"), "file": str(tmp_path / "file")}
    (tmp_path / "[a]").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["research", *(word.format(**names) for word in arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("error: ")
    assert complaint.format(**names) in said
