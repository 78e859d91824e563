"""The command ``ppool``: finds the room that does what is asked, and says what is missing.

It imports next to nothing, so that signals count from the start and help needs no extra.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

__all__ = ["COMMANDS", "Command", "export", "main", "run", "serve", "train"]


class Command(NamedTuple):
    """Where a command is.

    Attributes:
        module: Has it in ``app``, as a command or as the whole group.
        extra: Installs what it needs.
        summary: The first line of its help.
    """

    module: str
    extra: str
    summary: str


_SERVICE, _TRAINING = "ppool.service.cli", "ppool.training.cli"
_EXPORT, _ADOPT = "ppool.export._cli", "ppool.export._adopt_cli"

COMMANDS = {
    "serve": Command(_SERVICE, "serve", "Serve segmentation models over HTTP."),
    "segment": Command(_SERVICE, "serve", "Segment a folder of photos with no server."),
    "tune": Command(
        _SERVICE, "serve", "Measure which workers, threads and batch size are fastest."
    ),
    "export": Command(_EXPORT, "export", "Export a checkpoint to one ONNX file."),
    "adopt": Command(_ADOPT, "export", "Wrap a network exported by others."),
    "inspect": Command(_ADOPT, "export", "Say what goes into a network, and what comes out."),
    "precision": Command(_EXPORT, "export", "Convert a model to smaller numbers."),
    "info": Command(_EXPORT, "export", "Print what an exported file holds."),
    "tensorrt": Command(_EXPORT, "export", "Build a TensorRT engine for this machine's GPU."),
    "train": Command(_TRAINING, "train", "Train, evaluate and compare networks."),
    "evaluation": Command(_TRAINING, "train", "Score a checkpoint."),
}

_HELP = """\
Usage: ppool COMMAND [OPTIONS] [ARGUMENTS]

Segmentation that keeps the details.

{commands}

`ppool COMMAND --help` explains a command, `ppool --version` prints the version. The exit status is
0 if all was done, 1 if it failed wholly or in part, 2 if options, arguments or settings are wrong
and nothing was begun, 130 or 143 if it was interrupted.
"""


def run(words: Sequence[str]) -> NoReturn:
    """Do what the words after ``ppool`` ask for, and exit."""
    name, *rest = words or [""]
    if name == "--version":
        from ppool._version import __version__

        print(f"ppool {__version__}")
        sys.exit(0)
    if name in {"", "--help"}:
        width = max(map(len, COMMANDS))
        rows = (f"  {known:{width}}  {command.summary}" for known, command in COMMANDS.items())
        print(_HELP.format(commands="\n".join(rows)), end="")
        sys.exit(0 if name else 2)
    if name not in COMMANDS:
        _unknown(name)
    try:
        _call(name, rest)
    except ModuleNotFoundError as error:
        command = COMMANDS[name]
        if error.name is None or error.name.partition(".")[0] == "ppool":
            raise
        _end(f"ppool {name} needs {error.name}: pip install 'ppool[{command.extra}]'", 1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    sys.exit(0)


def _call(name: str, rest: list[str]) -> None:
    from importlib import import_module

    app = import_module(COMMANDS[name].module).app
    if name == "train":
        app(rest, prog_name="ppool train")
    else:
        app([name, *rest], prog_name="ppool")


def _unknown(name: str) -> NoReturn:
    from difflib import get_close_matches

    close = get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {close[0]}?" if close else "ppool --help lists them"
    _end(f"there is no command {name!r}; {hint}", 2)


def _end(reason: str, status: int) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(status)


def _start(words: Sequence[str]) -> NoReturn:
    _fill_standard_streams()
    # As process 1 of a container a signal without a handler is lost.
    signal.signal(signal.SIGTERM, _stop)
    name = words[0] if words else ""
    if name in {"serve", "segment", "tune"}:
        # Nothing begun would be missed: at once, whatever is being imported.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_served if name == "serve" else _end_at_once)
    if name == "serve":
        # It asks to look for changed model files, and none has been read.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Whoever starts it may have blocked them, so that none is lost before this.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        run(words)
    except OSError as error:
        _end(str(error.strerror or error), 1)


def _fill_standard_streams() -> None:
    """Where a daemon manager closed some, or a socket would get the number of one."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free. Workers inherit it, as they would the others.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _stop(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, _end_at_once)
    sys.exit(128 + number)


def _end_at_once(number: int, _: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _end_served(*_: object) -> NoReturn:
    os._exit(0)


def _alias(default: str) -> NoReturn:
    """``ppool-serve X`` and its like: ``ppool X``, or ``ppool serve X`` where X is no command."""
    words = sys.argv[1:]
    extra = COMMANDS[default].extra
    known = {name for name, command in COMMANDS.items() if command.extra == extra}
    _start(words if words and words[0] in {*known, "--version"} else [default, *words])


def main() -> NoReturn:
    """The program ``ppool``."""
    _start(sys.argv[1:])


def serve() -> NoReturn:
    """The older name ``ppool-serve``."""
    _alias("serve")


def export() -> NoReturn:
    """The older name ``ppool-export``."""
    _alias("export")


def train() -> NoReturn:
    """The older name ``ppool-train``."""
    words = sys.argv[1:]
    _start(words if words == ["--version"] else ["train", *words])


if __name__ == "__main__":
    main()
