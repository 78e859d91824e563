"""The commands for networks exported by others: adopt one, or look at it first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.console import Console
from rich.filesize import decimal

from ppool._cli import command_line

if TYPE_CHECKING:
    from ppool.feeding import Normalisation

__all__ = ["app"]

Network = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="ONNX file of a segmentation network.")
]

app = command_line("Networks exported by others.")


@app.command("adopt")
def adopt_command(
    network: Network,
    output: Annotated[
        Path, typer.Option("--output", "-o", dir_okay=False, help="Where the new file goes.")
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names between commas, or a file with one name a line, or - for standard input; "
            "default: config.json's beside the network, the file's metadata, or numbers."
        ),
    ] = None,
    preset: Annotated[
        Literal["imagenet", "caffe", "tf", "raw"] | None,
        typer.Option(
            help="A usual --mean, --std, --scale and --channels; raw is bytes as they are."
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Subtracted from the channels, in the network's order: numbers between commas; "
            "default: preprocessor_config.json's beside the network."
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="What the rest is divided by, likewise.")] = None,
    scale: Annotated[
        int | None,
        typer.Option(help="White that --mean and --std are of, 1 or 255; default: seen from them."),
    ] = None,
    channels: Annotated[
        Literal["rgb", "bgr", "grey"] | None, typer.Option(help="What the network is fed.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name to serve the model as; default: the file's name.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Resize every image to HEIGHTxWIDTH pixels.")
    ] = None,
    pad: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B", help="Keep proportions in --size and fill up with this colour."
        ),
    ] = None,
    max_side: Annotated[
        int | None, typer.Option(help="Longest side in pixels to feed; default: 1024.")
    ] = None,
    min_side: Annotated[
        int | None, typer.Option(help="Resize the shorter side to this many pixels.")
    ] = None,
    multiple: Annotated[
        int | None, typer.Option(help="Pad sides to multiples of this; default: 32.")
    ] = None,
    resample: Annotated[
        Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] | None,
        typer.Option(help="How photos are resized; default: bilinear."),
    ] = None,
    output_name: Annotated[
        str | None, typer.Option(help="The output that is meant, if there are several.")
    ] = None,
    head: Annotated[
        Literal["argmax", "threshold", "multilabel", "labels"] | None,
        typer.Option(help="What becomes of the output; default: found out by trying."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Foreground is above this; default: 0.5 of probabilities, 0 of logits."),
    ] = None,
) -> None:
    """Wrap a NETWORK exported by others, so that ppool serve serves it. Needs no PyTorch."""
    from ppool.export import Adoption, adopt_model
    from ppool.export._beside import Beside, read_beside
    from ppool.export._info import describe_policy

    beside = read_beside(network)
    # One word on sizes, and the file's own go.
    own = Beside(multiple=beside.multiple) if size or min_side or max_side else beside
    adoption = Adoption(
        classes=beside.classes if classes is None else _names(classes),
        normalisation=_normalisation(preset, mean, std, scale, channels, beside.normalisation),
        name=name,
        size=own.size if size is None else _size(size),
        pad=own.pad if pad is None else _colour(pad),
        max_side=max_side or own.max_side or 1024,
        min_side=min_side or own.min_side,
        multiple=multiple or own.multiple or 32,
        rounds=own.rounds,
        resample=resample or beside.resample,
        output=output_name,
        head=head,
        threshold=threshold,
    )
    description = adopt_model(network, output, adoption)
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for file in beside.files:
        say(f"read {file}")
    for note in beside.notes:
        say(f"  {note}")
    say(
        f"{output}: {len(description.classes)} classes, {describe_policy(description.input)}, "
        f"{decimal(output.stat().st_size)}; agrees with {network.name}"
    )
    for key in ("fed", "mask", "names", "doubts", "batches"):
        if key in description.training:
            say(f"  {key}: {description.training[key]}")
    if description.head == "labels":
        say("  ppool serve will refuse mode=tile for it, because labels cannot be blended")
    elif description.scores and not description.scores.on_grid:
        say(
            "  ppool serve will refuse mode=tile for it, because a score stands for no whole "
            "number of pixels; another --multiple or --size may help"
        )


@app.command("inspect")
def inspect_command(
    network: Network,
    photo: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="Photo to run the network on."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, help="Where a picture of the PHOTO's mask goes."
        ),
    ] = None,
) -> None:
    """Say what goes into a NETWORK, and what comes out, and the line that adopts it."""
    from rich.table import Table

    from ppool.export._inspect import inspect_network, picture, table_rows

    if output is not None and photo is None:
        raise ValueError("--output: expected a PHOTO to make a picture of, got none")
    found = inspect_network(network, photo)
    console = Console()
    grid = Table.grid(padding=(0, 2))
    for row in table_rows(found):
        grid.add_row(*row)
    console.print(grid, highlight=False, markup=False)
    if photo is not None:
        target = output or Path(f"{network.stem}-{photo.stem}.png")
        picture(found, photo).save(target)
        console.print(f"{target}: the photo and what the network sees in it", highlight=False)
    console.print("\nadopt it with:", highlight=False)
    console.print(f"  {found.line}", highlight=False, markup=False, soft_wrap=True)


def _normalisation(
    preset: str | None,
    mean: str | None,
    std: str | None,
    scale: int | None,
    channels: str | None,
    beside: Normalisation | None,
) -> Normalisation:
    from dataclasses import replace

    from ppool.feeding import PRESETS, Channels, Normalisation

    order = cast("Channels | None", channels)
    if scale not in {None, 1, 255}:
        raise ValueError(f"--scale: expected 1 or 255, got {scale!r}")
    if (mean is None) != (std is None):
        raise ValueError("--mean and --std: expected both, got one of them")
    if preset is not None and (mean is not None or scale is not None):
        raise ValueError("--preset: expected it or --mean, --std and --scale, got both")
    if mean is not None and std is not None:
        white = cast("Literal[1, 255] | None", scale)
        return Normalisation(_numbers("mean", mean), _numbers("std", std), order or "rgb", white)
    chosen = PRESETS[preset] if preset else beside
    if chosen is None:
        raise ValueError(
            "expected what the network's photos become: --mean and --std, or --preset imagenet "
            "(most networks), caffe, tf or raw (bytes); ppool inspect proposes it"
        )
    if order is None or order == chosen.channels:
        return chosen
    if order == "grey":
        mean_of_all, std_of_all = (sum(row) / len(row) for row in (chosen.mean, chosen.std))
        return Normalisation((mean_of_all,), (std_of_all,), order, chosen.white)
    swapped = "rgb" in (order, chosen.channels) and "grey" not in (order, chosen.channels)
    rows = [row[::-1] if swapped else row for row in (chosen.mean, chosen.std)]
    return replace(chosen, mean=rows[0], std=rows[1], channels=order)


def _names(text: str) -> list[str]:
    """Names from a list, a file, or standard input."""
    if text == "-":
        # Bytes, because the console's encoding need not be the list's.
        lines = sys.stdin.buffer.read().decode("utf-8-sig").splitlines()
    elif _is_file(text):
        lines = _text(Path(text)).splitlines()
    elif text.endswith((".txt", ".names", ".csv", ".lst")):
        raise ValueError(f"--classes: expected a file with one name a line, got none at {text!r}")
    else:
        lines = text.split(",")
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"--classes: expected names, got none in {text!r}")
    return names


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than any path can be
        return False


def _text(path: Path) -> str:
    content = path.read_bytes()
    # Windows' editors write either with a byte-order mark.
    encoding = "utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"--classes: expected {path} in UTF-8, got another encoding") from error


def _numbers(what: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--{what}: expected numbers between commas, got {text!r}") from None


def _colour(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--pad: expected a colour such as 114,114,114, got {text!r}")
    red, green, blue = map(int, parts)
    return red, green, blue


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"--size: expected HEIGHTxWIDTH such as 256x512, got {text!r}")
    return int(height), int(width)
