"""The command ``ppool``: what every command of it has in common."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from ppool import __version__
from ppool.__main__ import COMMANDS, run

PROGRAMS = Path(sys.executable).parent
ALIASES = ("ppool-serve", "ppool-export", "ppool-train")


@pytest.fixture(scope="module")
def decoys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with somebody's own modules of our names."""
    folder = tmp_path_factory.mktemp("decoys")
    bad = "raise SystemExit('imported the decoy ' + __file__)"
    for package in ("export", "models", "ppool", "research", "service", "training"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(bad)
    for module in ("models", "settings", "benchmarks"):
        (folder / f"{module}.py").write_text(bad)
    return folder


def test_every_program_starts_in_a_folder_full_of_decoys(decoys: Path) -> None:
    expected = {("ppool", name, "--help"): f"Usage: ppool {name} " for name in COMMANDS}
    expected |= {(alias, "--version"): f"ppool {__version__}\n" for alias in ("ppool", *ALIASES)}
    running = [
        subprocess.Popen(
            [PROGRAMS / words[0], *words[1:]],
            cwd=decoys,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in expected
    ]
    for process, start in zip(running, expected.values(), strict=True):
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, printed
        assert printed.startswith(start)


def help_of(name: str) -> str:
    group: Any = typer.main.get_command(importlib.import_module(COMMANDS[name].module).app)
    command = group if name == "train" else group.commands[name]
    return str(command.help).lower()


def test_the_list_says_what_the_commands_say_of_themselves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(["--help"])
    printed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name:<10}  {command.summary}\n" in printed
        assert help_of(name).startswith(command.summary.lower().rstrip(".")), name


@pytest.mark.parametrize("module", sorted({command.module for command in COMMANDS.values()}))
def test_no_command_of_a_room_is_left_out(module: str) -> None:
    group: Any = typer.main.get_command(importlib.import_module(module).app)
    for name in group.commands:
        if module != COMMANDS["train"].module:
            assert COMMANDS[name].module == module


def test_its_list_needs_no_extra() -> None:
    blocked = "typer", "rich", "numpy", "torch", "onnx", "onnxruntime", "pydantic"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}));"
        "from ppool.__main__ import run; run(sys.argv[1:])"
    )
    for words, status, said in (
        (["--help"], 0, ""),
        (["--version"], 0, ""),
        (["segment", "x"], 1, "error: ppool segment needs typer: pip install 'ppool[serve]'\n"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exprot"], "error: there is no command 'exprot'; did you mean export?\n"),
        (["5"], "error: there is no command '5'; ppool --help lists them\n"),
        (["serve", "--prot", "1"], "error: No such option: --prot"),
        (["export"], "error: Missing argument 'checkpoint'. (ppool export --help tells more)\n"),
        (["info", "nowhere.onnx"], "'nowhere.onnx' does not exist. (ppool info --help"),
        (["train"], "error: Missing command. (ppool train --help tells more)\n"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(words)
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert said.lower() in printed.lower()


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams_are_nobodys_trouble(closed: str) -> None:
    code = (
        "import os; from ppool.__main__ import _fill_standard_streams as fill; fill(); "
        "import sys; print('a'); print('b', file=sys.stderr);"
        "sys.exit(os.open('.', 0) < 3 or not all(map(os.get_inheritable, range(3))))"
    )
    subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code],
        check=True,
        capture_output=True,
    )


def test_output_that_cannot_be_written_is_one_line() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -P -m ppool --help >/dev/full', sys.executable],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_it_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ppool"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.startswith("Usage: ppool COMMAND")
