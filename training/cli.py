"""``ppool train``: train, evaluate and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from ppool._cli import MisuseError, command_line
from ppool.feeding import Normalisation
from ppool.models import Checkpoint
from ppool.provenance import provenance
from ppool.training import compare as comparison
from ppool.training.dataset import SegmentationDataset
from ppool.training.datasets import DATASETS, open_dataset
from ppool.training.datasets.folder import DESCRIPTION
from ppool.training.evaluate import BAND, evaluate
from ppool.training.own import prepare
from ppool.training.processes import processes
from ppool.training.recipe import RECIPES, Recipe
from ppool.training.start import settings_with, weights_file
from ppool.training.train import Runtime, train

__all__ = ["app", "given_options"]

app = command_line("Train, evaluate and compare networks.")
console = Console()

Data = Annotated[Path, typer.Option(help="Folder of the data.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for results.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves PyTorch's default.")]


RecipeName = Annotated[
    str | None,
    typer.Option(
        help=f"{' or '.join(RECIPES)}, or a file such as a run's recipe.json; default: own, for "
        "data that init looked at."
    ),
]

# A recipe has some thirty settings; naming each here would say them twice.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=SETTINGS, options_metavar="[OPTIONS] [--SETTING VALUE]...")
def run(
    context: typer.Context,
    output: Output,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data; drawn sets need none.")
    ] = None,
    recipe: RecipeName = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE is as good as --NAME VALUE; may be repeated."),
    ] = None,
    threads: Threads = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read images ahead.")] = 0,
    tensorboard: Annotated[bool, typer.Option(help="Also write curves for TensorBoard.")] = False,
) -> None:
    """Train one network; continues where an earlier call stopped.

    Every setting of a run is in one recipe, and each is an option: --network vgg16, --pooling max,
    --iterations 1000, --seed 3, --learning-rate 1e-3. A wrong name lists them. For several GPUs or
    processes: `torchrun --nproc-per-node N -m ppool.training run ...`.
    """
    _use_threads(threads)
    chosen = _recipe(recipe, data, context.args, settings or ())
    runtime = Runtime(workers, tensorboard)
    with processes() as group:
        checkpoint = train(chosen, *_load(chosen.dataset, data), output, runtime=runtime)
    if group.rank == 0:
        console.print(comparison.table({str(chosen.pooling): [checkpoint.training]}))
        console.print(f"wrote {output / 'checkpoint.pt'}")


def given_options(words: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values of ``--name value`` and ``--name=value``, with ``_`` for ``-`` in names.

    Raises:
        MisuseError: if a word belongs to no option, or an option has no value.
    """
    found, rest = [], list(words)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if not option.startswith("--") or option == "--":
            raise MisuseError(f"options: expected --NAME VALUE, got {option!r}")
        if not equals:
            if not rest:
                raise MisuseError(f"{option}: expected a value")
            value = rest.pop(0)
        found.append((option[2:].replace("-", "_"), value))
    return found


@app.command()
def evaluation(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.pt.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data; drawn sets need none.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help=f"{', '.join(DATASETS)}; default the checkpoint's.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which images to score.")] = "val",
    band: Annotated[int, typer.Option(min=1, help="Pixels that count as near a boundary.")] = BAND,
    threads: Threads = 0,
) -> None:
    """Score a checkpoint: IoU by class, accuracy, IoU along boundaries, time an image."""
    _use_threads(threads)
    loaded = Checkpoint.load(checkpoint)
    trained_on = loaded.training.get("recipe", {}).get("dataset", "pages")
    held_out = open_dataset(dataset or trained_on, data, split)
    names, known = ([c.name for c in classes] for classes in (held_out.classes, loaded.classes))
    if names != known:
        raise ValueError(
            f"data set: expected the classes of the checkpoint, {', '.join(known)}; "
            f"got {', '.join(names)}; choose another with --dataset"
        )
    found = evaluate(
        loaded.build(),
        (held_out[i] for i in range(len(held_out))),
        num_classes=len(loaded.classes),
        normalise=Normalisation(loaded.mean, loaded.std),
        policy=loaded.input,
        band=band,
    )
    console.print(found.table(loaded.classes))
    console.print(
        f"{len(held_out)} images, {found.milliseconds:.1f} ms an image (median; "
        f"PyTorch threads: {torch.get_num_threads()}; {provenance()['processor']})"
    )


@app.command()
def init(
    root: Annotated[Path, typer.Argument(help="Folder with images/, and masks/ or an export.")],
    held_out: Annotated[float, typer.Option(help="Share of the images to validate with.")] = 0.2,
) -> None:
    """Make own photos a data set: check every mask, split, write dataset.json.

    Masks are PNG files of the images' names with a class number a pixel (255 for none), and
    classes.txt has the names, one a line. Instead there may be an export of a label tool: COCO,
    Label Studio's JSON or CVAT for images; what was drawn there becomes masks/ and classes.txt.
    What does not fit is explained, file by file. Then: ppool train run --data FOLDER -o RUN.
    """
    found = prepare(root, held_out)
    grid = Table("class", "number", "share of labelled pixels, %")
    for entry in found.classes:
        grid.add_row(entry.name, str(entry.id), f"{100 * found.shares[entry.name]:.2f}")
    console.print(grid)
    if found.drawn is not None:
        console.print(f"drew {root / 'masks'} from {found.drawn.name}; delete it to draw anew")
    if found.left_out:
        named = ", ".join(found.left_out[:3]) + (", ..." if len(found.left_out) > 3 else "")
        console.print(
            f"left out {len(found.left_out)} images that the export does not name: {named}"
        )
    train_on, hold = (len(found.splits[name]) for name in ("train", "val"))
    console.print(f"{train_on} images to train on, {hold} held out; wrote {root / 'dataset.json'}")


@app.command(context_settings=SETTINGS, options_metavar="[OPTIONS] [--SETTING VALUE]...")
def compare(
    context: typer.Context,
    data: Data,
    output: Output,
    recipe: RecipeName = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs for each pooling.")] = 3,
    pooling: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default ppool and max.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Train with several poolings and seeds and print the table; resumable run by run.

    Settings are options, as for run.
    """
    _use_threads(threads)
    base = _recipe(recipe, data, context.args)
    recipes = {name: replace(base, pooling=name) for name in pooling or ["ppool", "max"]}
    results = comparison.compare(recipes, range(seeds), _load(base.dataset, data), output)
    console.print(comparison.table(results))


def _use_threads(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


def _recipe(
    name: str | None, data: Path | None, options: Sequence[str], assignments: Sequence[str] = ()
) -> Recipe:
    """A recipe by name or file, with the settings that the command line replaces.

    What comes with weights counts where the command line says nothing else.
    """
    name = name or _usual_recipe(data)
    if name not in RECIPES and not Path(name).is_file():
        raise MisuseError(f"--recipe: expected {', '.join(RECIPES)} or a file, got {name!r}")
    recipe = RECIPES[name] if name in RECIPES else Recipe.load(Path(name))
    changes = [*(f"{option}={value}" for option, value in given_options(options)), *assignments]
    chosen = recipe.changed(changes)
    if chosen.weights is None or not any(change.startswith("weights=") for change in changes):
        return chosen
    path = weights_file(chosen.weights)
    own = settings_with(path)
    if own:
        told = ", ".join(f"{key} {value}" for key, value in own.items())
        console.print(f"with {path.name}: {told}", highlight=False)
    return replace(replace(recipe, **own).changed(changes), weights=str(path))


def _usual_recipe(data: Path | None) -> str:
    if data is not None and (data / DESCRIPTION).is_file():
        return "own"
    if "pages" in DATASETS:  # among those of research
        return "pages"
    where = "FOLDER" if data is None else data
    raise MisuseError(
        f"--recipe: expected one, or --data with own photos that `ppool train init {where}` looked "
        f"at; recipes are {', '.join(RECIPES)}"
    )


def _load(dataset: str, data: Path | None) -> tuple[SegmentationDataset, SegmentationDataset]:
    return open_dataset(dataset, data, "train"), open_dataset(dataset, data, "val")
