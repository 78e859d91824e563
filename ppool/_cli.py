"""What the command lines share: one form of help and errors, one meaning of exit statuses."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

__all__ = ["MisuseError", "command_line", "complain", "describe"]


# Typer used to depend on Click and now holds a copy of it; it re-exports this subclass's subclass.
_ClickError: Any = typer.BadParameter.__mro__[2]


class MisuseError(ValueError):
    """Options, arguments or settings are wrong, and nothing was begun: exit status 2."""


class _Group(TyperGroup):
    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run, complain in one line if need be, and exit."""
        try:
            status = super().main(*args, **{**extra, "standalone_mode": False})
        except _ClickError as error:
            context = getattr(error, "ctx", None)
            hint = f" ({context.command_path} --help tells more)" if context else ""
            complain(f"{error.format_message()}{hint}")
            sys.exit(error.exit_code)
        except MisuseError as error:
            complain(str(error))
            sys.exit(2)
        except OSError as error:
            complain(describe(error))
            sys.exit(1)
        except ValueError as error:
            complain(str(error))
            sys.exit(1)
        sys.exit(status or 0)


def command_line(text: str) -> typer.Typer:
    """A group of commands whose mistakes, ``ValueError`` and ``OSError``, are one line."""
    return typer.Typer(
        cls=_Group,
        help=text,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def describe(error: OSError) -> str:
    """What the system refused, without its number."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def complain(reason: str) -> None:
    """Say on stderr what is wrong."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
