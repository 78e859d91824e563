"""Write the reference pages that are read off the code: API, commands, settings, metrics.

Usage: python -m docs.reference (``make docs`` does it)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer

from ppool.__main__ import COMMANDS
from ppool.service.http import pages
from ppool.service.http.app import create_app
from ppool.service.metrics import Metrics
from ppool.service.settings import Settings, describe_settings

FOLDER = Path(__file__).parent / "reference"


def api(folder: Path) -> None:
    """OpenAPI's document, and Swagger UI to read it with, from files of its own."""
    folder.mkdir(exist_ok=True)
    document = create_app(Settings()).openapi()
    (folder / "openapi.json").write_text(json.dumps(document, indent=1), "utf-8")
    swagger = files("ppool.service.http") / "swagger"
    page = (swagger / "index.html").read_text("utf-8").replace(f"{pages.ASSETS[1:]}/", "")
    (folder / "index.html").write_text(page, "utf-8")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
        (folder / name).write_bytes((swagger / name).read_bytes())


def commands() -> Iterator[str]:
    """What ``--help`` says, of every command."""
    yield """# Commands

Every command explains itself with `--help`. The exit status is 0 if all was done, 1 if it failed
wholly or in part, 2 if options, arguments or settings are wrong and nothing was begun, 130 or 143
if it was interrupted."""
    for name, entry in COMMANDS.items():
        group: Any = typer.main.get_command(import_module(entry.module).app)
        if name == "train":
            for inner, command in group.commands.items():
                yield from _command(f"ppool train {inner}", command)
        else:
            yield from _command(f"ppool {name}", group.commands[name])


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"\n## {name}\n\n{command.help}\n\n| | |\n| --- | --- |"
    for option in command.params:
        if option.name == "help":
            continue
        names = [*option.opts, *option.secondary_opts]
        shown = ", ".join(names) if option.param_type_name == "option" else option.name.upper()
        # Paths, numbers and words; a switch, a list and a call say nothing that a reader can use.
        plain = isinstance(option.default, str | int | float) and not isinstance(
            option.default, bool
        )
        default = f" [{option.default}]" if plain else ""
        yield f"| `{shown}` | {option.help}{' Required.' * option.required}{default} |"


def settings() -> Iterator[str]:
    """A row a setting."""
    yield """# Settings of ppool serve

Options of the command line win over environment variables, those over a TOML file (`--config` or
`PPOOL_CONFIG`), that over the default. In the file a setting has its variable's name without the
prefix, in small letters. A list is written with commas in a variable, as a list in the file. A
variable that begins with `PPOOL_` and is none of these stops the start.

| variable | default | |
| --- | --- | --- |"""
    for variable, default, text in describe_settings():
        yield f"| `{variable}` | {default and f'`{default}`'} | {text} |"


class _Idle:
    """A service that does nothing, to be watched."""

    def ready(self) -> bool:
        return True

    def queue_seconds(self) -> float:
        return 0.0

    def nothing(self) -> tuple[()]:
        return ()

    buckets = workers = builds = nothing


def metrics() -> Iterator[str]:
    """A row a metric, as ``/metrics`` explains it."""
    yield """# Metrics

What `GET /metrics` tells Prometheus; [how to read it](../how-to/metrics.md).

| metric | type | |
| --- | --- | --- |"""
    instruments = Metrics()
    instruments.watch(_Idle())
    text = instruments.render().decode()
    for name, explained, kind in re.findall(r"# HELP (\S+) (.*)\n# TYPE \S+ (\w+)", text):
        if not name.endswith("_created"):
            yield f"| `{name}` | {kind} | {explained} |"


def committed() -> dict[str, str]:
    """File name and content of each page that the repository holds."""
    writers = (commands, settings, metrics)
    return {f"{write.__name__}.md": "\n".join([*write(), ""]) for write in writers}


def main() -> None:
    """Write all of them."""
    api(FOLDER / "api")
    for name, text in committed().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
