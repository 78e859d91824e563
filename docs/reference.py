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

import typer
from typer.cli import get_docs_for_click

from ppool.__main__ import COMMANDS
from ppool.service.http import pages
from ppool.service.http.app import create_app
from ppool.service.metrics import Metrics
from ppool.service.settings import PREFIX, Settings

FOLDER = Path(__file__).parent / "reference"


def api(folder: Path) -> None:
    """OpenAPI's document, and Swagger UI to read it with, from files of its own."""
    folder.mkdir(exist_ok=True)
    document = create_app(Settings()).openapi()
    (folder / "openapi.json").write_text(json.dumps(document, indent=1), "utf-8")
    page = bytes(pages.api_page().body).decode().replace(f"{pages.ASSETS[1:]}/", "")
    # The service says the encoding in a header; a file has to say it itself.
    page = page.replace("<head>", '<head>\n    <meta charset="utf-8">')
    (folder / "index.html").write_text(page, "utf-8")
    package, assets = pages.ASSETS_PACKAGE
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        with (files(package) / assets / name).open("rb") as source:
            (folder / name).write_bytes(source.read())


def commands() -> Iterator[str]:
    """What ``--help`` says, of every command."""
    yield "# Commands\n"
    for name, entry in COMMANDS.items():
        group = typer.main.get_command(import_module(entry.module).app)
        command = group if name == "train" else group.commands[name]
        context = typer.Context(command, info_name=f"ppool {name}")
        page = get_docs_for_click(obj=command, ctx=context, name=f"ppool {name}")
        yield re.sub("^#", "##", page, flags=re.MULTILINE)


def settings() -> Iterator[str]:
    """A row a setting."""
    yield """# Settings of ppool serve

Options of the command line win over environment variables, those over a TOML file (`--config` or
`PPOOL_CONFIG`), that over the default. In the file a setting has its variable's name without the
prefix, in small letters. A list is written with commas in a variable, as a list in the file.

| variable | default | |
| --- | --- | --- |"""
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        code = "" if shown in ("", None) else f"`{shown}`"
        yield f"| `{PREFIX}{name.upper()}` | {code} | {field.description} |"


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


def main() -> None:
    """Write all of them."""
    api(FOLDER / "api")
    for write in (commands, settings, metrics):
        (FOLDER / f"{write.__name__}.md").write_text("\n".join([*write(), ""]), "utf-8")


if __name__ == "__main__":
    main()
